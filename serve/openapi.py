"""The OpenAPI document, complete enough to generate a client from."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.formats import conllu, jsonl_stream, tree_drawing
from serve.problems import KINDS, MEDIA_TYPE, ProblemDetails
from serve.requests.http_input import LEAST_SECONDS, TIMEOUT_HEADER
from serve.schemas import (
    AnnotationRequest,
    NerResponse,
    NerResult,
    ParseResponse,
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

CONLLU_ANSWER = (
    "# newdoc id = item-0\n# model = parse\n# sent_id = item-0-0\n# text = She sleeps.\n"
    "1\tShe\t_\t_\t_\t_\t2\tnsubj\t_\t_\n"
    "2\tsleeps\t_\t_\t_\t_\t0\troot\t_\tSpaceAfter=No\n"
    "3\t.\t_\t_\t_\t_\t2\tpunct\t_\t_\n\n"
)
STREAM_BODY = '{"text": "Ada Lovelace was born in London.", "id": 1}\n{"tokens": ["Bye", "Ada"]}\n'

TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Seconds after which no answer is wanted any more; the server's own limit is in /info.",
    "schema": {"type": "number", "minimum": LEAST_SECONDS},
    "example": 2.5,
}


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = KINDS[code]
        response = responses.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {MEDIA_TYPE: {"schema": _reference(ProblemDetails), "examples": {}}},
            },
        )
        example = {"type": f"/docs#{code}", "title": title, "status": status, "detail": "…", "code": code}
        response["content"][MEDIA_TYPE]["examples"][code] = {"summary": title, "value": example}
    return responses


def stream(task: str) -> dict[str, Any]:
    """The description of a task's stream."""
    text = {"type": "string"}
    result = _reference(NerResult if task == "ner" else ParseResult)
    lines = {"schema": text, "itemSchema": {"anyOf": [result, _reference(StreamFault)]}}
    body = {"schema": text, "itemSchema": _reference(StreamLine), "example": STREAM_BODY}
    return {
        "summary": f"{NER['summary'] if task == 'ner' else PARSE['summary']} of JSON lines",
        "operation_id": "recognise_stream" if task == "ner" else "parse_stream",
        "response_class": Response,
        "responses": problem_responses(*COMMON_PROBLEMS)
        | {
            200: {
                "description": "One line for each line, in order.",
                "content": {jsonl_stream.MEDIA_TYPE: lines},
            }
        },
        "openapi_extra": {"requestBody": {"required": True, "content": {jsonl_stream.MEDIA_TYPE: body}}},
    }


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
    _, schemas = models_json_schema(
        [
            (AnnotationRequest, "validation"),
            (StreamLine, "validation"),
            (StreamFault, "serialization"),
            (ProblemDetails, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    described["components"]["schemas"].update(schemas["$defs"])
    if keys:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _annotation(text: str, tokens: list[str]) -> dict[str, Any]:
    """The parts of /ner and /parse that their handlers read by themselves, with examples."""
    examples = {
        "texts": {"summary": "Raw texts", "value": {"texts": [text]}},
        "sentences": {"summary": "Sentences of tokens", "value": {"sentences": [tokens]}},
    }
    content = {"application/json": {"schema": _reference(AnnotationRequest), "examples": examples}}
    return {"parameters": [TIMEOUT_PARAMETER], "requestBody": {"required": True, "content": content}}


NER: dict[str, Any] = {
    "summary": "Named entities",
    "operation_id": "recognise",
    "response_model": NerResponse,
    "responses": problem_responses(*ANNOTATION_PROBLEMS),
    "openapi_extra": _annotation("Bye Ada.", ["Bye", "Ada", "."]),
}
"""The description of /ner."""

PARSE: dict[str, Any] = {
    "summary": "Dependency trees",
    "operation_id": "parse",
    "response_model": ParseResponse,
    "responses": problem_responses(*ANNOTATION_PROBLEMS)
    | {
        200: {
            "content": {
                conllu.MEDIA_TYPE: {"schema": {"type": "string"}, "example": CONLLU_ANSWER},
                tree_drawing.MEDIA_TYPE: {"schema": {"type": "string"}},
            }
        }
    },
    "openapi_extra": _annotation("She sleeps.", ["She", "sleeps", "."]),
}
"""The description of /parse."""
