"""The OpenAPI document: examples, problems and schemas, complete enough to generate a client from."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.formats import conllu
from serve.formats import jsonl_stream as stream
from serve.formats import tree_drawing as drawing
from serve.problems import ProblemDetails
from serve.requests.http_input import LEAST_SECONDS, TIMEOUT_HEADER
from serve.schemas import (
    AnnotationRequest,
    NerResult,
    ParseResult,
    StreamFault,
    StreamLine,
)

DESCRIPTION = """\
Named entities and dependency trees from small distilled models.

`POST /ner` and `POST /parse` take raw `texts` or `sentences` of tokens and answer one result for each item,
in order; `/ner/stream` and `/parse/stream` do the same for JSON lines of any number. `GET /models` lists the
models, `GET /info` the limits. Every error is `application/problem+json` with a stable `code`; `429` says in
`Retry-After` when to come again.
"""

COMMON_PROBLEMS = (
    "unauthorised", "invalid_timeout", "invalid_request", "unknown_model", "no_model_for_task", "wrong_task",
    "unsupported_media_type", "internal_error", "not_ready",
)  # fmt: skip
ANNOTATION_PROBLEMS = (
    "malformed_json", "invalid_encoding", "body_timeout", "body_too_large",
    "too_many_items", "text_too_long", "sentence_too_long", "token_too_long", "too_many_tokens",
    "overloaded", "deadline_exceeded", *COMMON_PROBLEMS,
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
STREAM_BODY = '{"text": "Ada Lovelace was born in London.", "id": 1}\n{"tokens": ["Bye", "Ada"]}\n{"x": ""}\n'
STREAM_FAULT = (
    '{"error":{"line":3,"code":"invalid_record","message":"0 of the keys text, tokens and sentences; '
    'expected exactly one"}}\n'
)
NER_STREAM_ANSWER = (
    '{"id":1,"tokens":["Ada","Lovelace","was","born","in","London","."],"entities":[{"label":"PER","start":0,'
    '"end":2,"start_char":0,"end_char":12,"text":"Ada Lovelace","score":0.98}]}\n'
    '{"tokens":["Bye","Ada"],"entities":[]}\n' + STREAM_FAULT
)
PARSE_STREAM_ANSWER = (
    '{"id":1,"tokens":["She","sleeps"],"heads":[2,0],"deprels":["nsubj","root"],"scores":[0.99,0.98],'
    '"sentences":[{"start":0,"end":2}]}\n' + STREAM_FAULT
)

MODEL_EXAMPLE = {
    "id": "ner@2", "name": "ner", "version": "2", "task": "ner", "role": "student", "default": True,
    "language": "en", "segmenter": "en", "labels": ["LOC", "ORG", "PER"],
    "scores": {"test": {"f1": 60.6}}, "provider": "CPUExecutionProvider",
}  # fmt: skip
MODELS_EXAMPLE = {
    "models": [MODEL_EXAMPLE],
    "refused": [{"id": "ner@3", "reason": "the bundle bundles/ner/3 does not load: model.onnx was changed"}],
}
INFO_EXAMPLE = {
    "version": "0.1.0",
    "models": [MODEL_EXAMPLE],
    "limits": {"body_bytes": 1048576, "items": 256, "text_characters": 100000, "sentence_tokens": 512,
               "token_characters": 1000, "request_tokens": 32768, "line_bytes": 1048576},
    "queue": {"max_batch_tokens": 2048, "max_queue_sentences": 1024, "max_queue_tokens": 4096},
    "times": {"request_seconds": 30.0, "body_seconds": 20.0, "stream_idle_seconds": 60.0},
}  # fmt: skip
METRICS_EXAMPLE = 'serve_requests_total{path="/ner",status="200"} 1027.0\n'

TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Seconds after which no answer is wanted any more; the server's own limit is in /info.",
    "schema": {"type": "number", "minimum": LEAST_SECONDS},
    "example": 2.5,
}

_JSON = "application/json"


def answer_example(example: Any, media_type: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that answers one thing."""
    return {200: {"content": {media_type: {"example": example}}}}


def ner_answer() -> dict[int | str, dict[str, Any]]:
    """The `responses` of /ner beside its problems."""
    return answer_example(NER_ANSWER)


def parse_answer() -> dict[int | str, dict[str, Any]]:
    """The `responses` of /parse beside its problems."""
    text = {"type": "string"}
    content = {
        _JSON: {"example": PARSE_ANSWER},
        conllu.MEDIA_TYPE: {"schema": text, "example": CONLLU_ANSWER},
        drawing.MEDIA_TYPE: {"schema": text, "example": '<figure class="tree"><svg></svg></figure>'},
    }
    return {200: {"content": content}}


def stream_answer(task: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a stream beside its problems."""
    result = "NerResult" if task == "ner" else "ParseResult"
    line = {"anyOf": [_reference(result), _reference("StreamFault")]}
    example = NER_STREAM_ANSWER if task == "ner" else PARSE_STREAM_ANSWER
    content = {stream.MEDIA_TYPE: {"schema": {"type": "string"}, "itemSchema": line, "example": example}}
    return {200: {"description": "One line for each line, in order.", "content": content}}


def annotation_body(text: str) -> dict[str, Any]:
    """The parts of an operation of /ner or /parse that its handler reads by itself."""
    tokens = [*text.removesuffix(".").split(), "."]
    examples = {
        "texts": {"summary": "Raw texts", "value": {"texts": [text]}},
        "sentences": {"summary": "Sentences of tokens", "value": {"sentences": [tokens]}},
    }
    content = {_JSON: {"schema": _reference("AnnotationRequest"), "examples": examples}}
    return {"parameters": [TIMEOUT_PARAMETER], "requestBody": {"required": True, "content": content}}


def stream_body() -> dict[str, Any]:
    """The request body of a stream."""
    content = {
        stream.MEDIA_TYPE: {
            "schema": {"type": "string"},
            "itemSchema": _reference("StreamLine"),
            "example": STREAM_BODY,
        }
    }
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI, *, keys: bool) -> None:
    """Gives the application its OpenAPI document; `keys` says whether an API key is asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, keys)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, keys: bool) -> dict[str, Any]:
    """FastAPI's description, with the schemas that routes name without declaring them."""
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    named: list[tuple[type[BaseModel], Any]] = [
        (AnnotationRequest, "validation"),
        (StreamLine, "validation"),
        (StreamFault, "serialization"),
        (NerResult, "serialization"),
        (ParseResult, "serialization"),
        (ProblemDetails, "serialization"),
    ]
    _, schemas = models_json_schema(named, ref_template="#/components/schemas/{model}")
    described["components"]["schemas"].update(schemas["$defs"])
    if keys:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
