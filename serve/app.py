"""The application, for `python -m serve` or `gunicorn serve.app:app -k uvicorn_worker.UvicornWorker`."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from serve import __version__, conllu, problems
from serve.annotate import check_size, items_of, parse, recognise
from serve.body_limit import BodyLimit
from serve.bundles import Load, StartError, load_bundle
from serve.models import Model, Models, load_models
from serve.problems import Fault, Problem, ProblemDetails, documented, pointer
from serve.schemas import (
    AnnotationRequest,
    Info,
    ModelInfo,
    NerResponse,
    ParseResponse,
    Status,
)
from serve.settings import Settings

log = logging.getLogger("serve")

DESCRIPTION = """\
Named entities and dependency trees from small distilled models.

`POST /ner` and `POST /parse` take raw `texts` or `sentences` of tokens and answer one result for each
item, in order. `GET /info` lists the models and the limits. Every error is `application/problem+json` with a
stable `code`.
"""

INPUT_PROBLEMS = (
    "malformed_json", "invalid_encoding", "unknown_model", "no_model_for_task", "body_too_large",
    "too_many_items", "text_too_long", "sentence_too_long", "token_too_long", "too_many_tokens",
    "unsupported_media_type",
    "invalid_request", "wrong_task", "internal_error", "not_ready",
)  # fmt: skip

NER_ANSWER = {
    "model": "ner",
    "results": [
        {
            "tokens": ["Ada", "Lovelace", "was", "born", "in", "London", "."],
            "entities": [
                {"label": "PER", "start": 0, "end": 2, "start_char": 0, "end_char": 12,
                 "text": "Ada Lovelace", "score": 0.98},
                {"label": "LOC", "start": 5, "end": 6, "start_char": 25, "end_char": 31,
                 "text": "London", "score": 0.95},
            ],
        }
    ],
}  # fmt: skip
PARSE_ANSWER = {
    "model": "parse",
    "results": [
        {
            "tokens": ["She", "sleeps", "."],
            "heads": [2, 0, 2],
            "deprels": ["nsubj", "root", "punct"],
            "scores": [0.99, 0.98, 0.99],
            "sentences": [{"start": 0, "end": 3}],
        }
    ],
}
CONLLU_ANSWER = (
    "# newdoc id = item-0\n# model = parse\n# sent_id = item-0-0\n# text = She sleeps.\n"
    "1\tShe\t_\t_\t_\t_\t2\tnsubj\t_\t_\n"
    "2\tsleeps\t_\t_\t_\t_\t0\troot\t_\tSpaceAfter=No\n"
    "3\t.\t_\t_\t_\t_\t2\tpunct\t_\t_\n\n"
)

FAULTS_SHOWN = 20

Answer = TypeVar("Answer")


def create_app(settings: Settings | None = None, *, load: Load = load_bundle) -> FastAPI:
    """The application over the bundles of `settings.bundles`, which load when it starts.

    `load` opens one bundle's folder; tests give their own.
    """
    settings = settings or Settings()
    limits = settings.limits

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            app.state.models = load_models(settings, load)
        except StartError as error:
            log.error("%s", error)
            raise
        yield
        app.state.models = None

    app = FastAPI(
        title="Structural knowledge distillation", version=__version__, description=DESCRIPTION,
        lifespan=lifespan, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.models = None
    app.add_middleware(BodyLimit, limit=limits.body_bytes)
    problems.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]

    @app.post(
        "/ner",
        summary="Named entities",
        response_model=NerResponse,
        responses=documented(*INPUT_PROBLEMS) | {200: _example("application/json", NER_ANSWER)},
        openapi_extra=_request_body("Ada Lovelace was born in London."),
    )
    async def ner(request: Request) -> Response:
        """Finds the named entities of each text or sentence."""
        wanted = await _read(request)
        model = _models(app).choose("ner", wanted.model)
        check_size(wanted, limits)

        def answer() -> str:
            items = items_of(wanted, model.segmenter, limits)
            return NerResponse(model=model.name, results=recognise(items, model)).model_dump_json()

        return Response(await _in_thread(model, answer), media_type="application/json")

    @app.post(
        "/parse",
        summary="Dependency trees",
        response_model=ParseResponse,
        responses=documented(*INPUT_PROBLEMS)
        | {200: _example("application/json", PARSE_ANSWER, (conllu.MEDIA_TYPE, CONLLU_ANSWER))},
        openapi_extra=_request_body("She sleeps."),
    )
    async def parse_trees(request: Request) -> Response:
        """Parses each text or sentence; with `Accept: text/x-conllu` the answer is CoNLL-U."""
        wanted = await _read(request)
        model = _models(app).choose("parse", wanted.model)
        check_size(wanted, limits)
        as_conllu = conllu.accepted(request.headers.get("accept", "*/*"))

        def answer() -> str:
            items = items_of(wanted, model.segmenter, limits)
            results = parse(items, model)
            if as_conllu:
                return conllu.write(items, results, model.name)
            return ParseResponse(model=model.name, results=results).model_dump_json()

        media_type = f"{conllu.MEDIA_TYPE}; charset=utf-8" if as_conllu else "application/json"
        return Response(await _in_thread(model, answer), media_type=media_type, headers={"Vary": "Accept"})

    @app.get("/livez", summary="Whether the process answers")
    async def livez() -> Status:
        """Answers as long as the event loop runs, also while models are busy."""
        return Status(status="live")

    @app.get("/readyz", summary="Whether requests can be served", responses=documented("not_ready"))
    async def readyz() -> Status:
        """Answers 200 once every bundle is loaded, and 503 before."""
        _models(app)
        return Status(status="ready")

    @app.get("/info", summary="The models and the limits", responses=documented("not_ready"))
    async def info() -> Info:
        """Names the version, the models with their labels and scores, and the limits of a request."""
        models = _models(app)
        return Info(version=__version__, models=[_info(model, models) for model in models.all], limits=limits)

    return app


async def _read(request: Request) -> AnnotationRequest:
    """The request's body. Raises a `Problem` that names what is wrong with it."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json" and not declared.endswith("+json"):
        detail = f"The content type is {declared!r}; send the header `Content-Type: application/json`."
        raise Problem("unsupported_media_type", detail)
    try:
        body = (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            "invalid_encoding", f"Byte {error.start} is not UTF-8; JSON is sent as UTF-8."
        ) from None
    try:
        return AnnotationRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem("malformed_json", f"{faults[0]['msg']}.") from None
        errors = [
            Fault(pointer=pointer(*fault["loc"]), detail=fault["msg"]) for fault in faults[:FAULTS_SHOWN]
        ]
        detail = "; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in errors[:3])
        raise Problem("invalid_request", f"{detail}.", errors) from None


async def _in_thread(model: Model, answer: Callable[[], Answer]) -> Answer:
    return await to_thread.run_sync(answer, limiter=model.limiter)


def _models(app: FastAPI) -> Models:
    models = app.state.models
    if models is None:
        raise Problem("not_ready", "The bundles are not loaded yet, or the server is stopping.")
    assert isinstance(models, Models)
    return models


def _info(model: Model, models: Models) -> ModelInfo:
    manifest = model.manifest
    return ModelInfo(
        name=model.name,
        task=manifest.task,
        role=manifest.role,
        default=models.default(manifest.task) is model,
        language=manifest.language,
        segmenter=model.segmenter.language,
        labels=model.labels,
        scores=manifest.scores,
        provider=model.provider,
    )


def _example(media_type: str, value: Any, *others: tuple[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {media_type: {"example": value}}
    for other, text in others:
        content[other] = {"schema": {"type": "string"}, "example": text}
    return {"content": content}


def _request_body(text: str) -> dict[str, Any]:
    tokens = [*text.removesuffix(".").split(), "."]
    examples = {
        "texts": {"summary": "Raw texts", "value": {"texts": [text]}},
        "sentences": {"summary": "Sentences of tokens", "value": {"sentences": [tokens]}},
    }
    schema = {"$ref": "#/components/schemas/AnnotationRequest"}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "examples": examples}},
        }
    }


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description and the schemas that routes name without declaring them."""
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        named: list[tuple[type[BaseModel], Any]] = [
            (AnnotationRequest, "validation"),
            (ProblemDetails, "serialization"),
        ]
        _, schemas = models_json_schema(named, ref_template="#/components/schemas/{model}")
        described["components"]["schemas"].update(schemas["$defs"])
        app.openapi_schema = described
    return app.openapi_schema


app = create_app()
