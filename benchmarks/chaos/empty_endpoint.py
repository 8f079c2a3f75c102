"""An endpoint of `/ner`'s schema that does nothing: what HTTP, FastAPI and the schema cost by themselves.

uvicorn benchmarks.chaos.empty_endpoint:app --no-access-log
"""

from fastapi import FastAPI

from serve.schemas import AnnotationRequest, NerResponse, NerResult

app = FastAPI(openapi_url=None)


@app.get("/readyz")
async def ready() -> None:
    """Answers as soon as it listens."""


@app.post("/ner")
async def ner(request: AnnotationRequest) -> NerResponse:
    """Answers each sentence of tokens, with no entities."""
    results = [NerResult(tokens=tokens, entities=[], cuts=[]) for tokens in request.sentences or ()]
    return NerResponse(model="empty", results=results)
