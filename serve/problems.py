"""Every error that the server answers: `application/problem+json` (RFC 9457) with a stable `code`."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from serve.telemetry.summary import summary_of

MEDIA_TYPE = "application/problem+json"

KINDS: Mapping[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not JSON"),
    "invalid_encoding": (400, "The body is not UTF-8"),
    "invalid_timeout": (400, "The time for the request is no number of seconds"),
    "invalid_http": (400, "This is not HTTP"),
    "unauthorised": (401, "No valid API key"),
    "unknown_model": (404, "No model of that name"),
    "no_model_for_task": (404, "No model for this task"),
    "not_found": (404, "Nothing at this path"),
    "method_not_allowed": (405, "Method not allowed at this path"),
    "body_timeout": (408, "The body came too slowly"),
    "body_too_large": (413, "The body is too large"),
    "too_many_items": (413, "Too many items"),
    "text_too_long": (413, "A text is too long"),
    "sentence_too_long": (413, "A sentence is too long"),
    "token_too_long": (413, "A token is too long"),
    "too_many_tokens": (413, "Too many tokens"),
    "unsupported_media_type": (415, "The body is not declared as JSON"),
    "invalid_request": (422, "The request does not fit the schema"),
    "wrong_task": (422, "The model does another task"),
    "overloaded": (429, "Too much waits already"),
    "http_error": (400, "The request cannot be answered"),
    "internal_error": (500, "The server failed"),
    "not_ready": (503, "The server is not ready"),
    "deadline_exceeded": (504, "The time of the request was up"),
}
"""`code` to HTTP status and title. A code never changes its meaning; clients may branch on it."""


class Fault(BaseModel):
    """One fault of the input: where it is and what is wrong with it."""

    pointer: str = Field(
        description="JSON pointer (RFC 6901) into the request's body, empty for the whole; of a parameter "
        "`/query/NAME`."
    )
    detail: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="A reference to this page that names the kind of problem.")
    title: str = Field(description="The kind of problem in words; the same for every problem of a `code`.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong this time, and what to do.")
    code: str = Field(description="The kind of problem as a stable word to branch on.")
    errors: list[Fault] | None = Field(None, description="The faults of the input, where there are any.")


class Problem(Exception):  # noqa: N818 - the name of the RFC
    """Raise it anywhere under a request to answer with that problem.

    >>> problem = Problem("text_too_long", "Text 3 has ...", [Fault(pointer="/texts/3", detail="...")])
    >>> problem.status, problem.title
    (413, 'A text is too long')
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[Fault] | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.title = KINDS[code]
        self.status = status or self.status
        self.code, self.detail = code, detail
        self.errors, self.headers = errors, headers

    def response(self, scope: Scope) -> Response:
        """The answer to the request of this scope, whose summary gets the code."""
        summary_of(scope).code = self.code
        return Response(self.body(), self.status, headers=self.headers, media_type=MEDIA_TYPE)

    def body(self) -> bytes:
        """The JSON of the problem."""
        details = ProblemDetails(
            type=f"/docs#{self.code}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            code=self.code,
            errors=list(self.errors) if self.errors else None,
        )
        return details.model_dump_json(exclude_none=True).encode()


def pointer(*path: str | int) -> str:
    """The JSON pointer of a path, as `pointer("texts", 3)` is `/texts/3`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def install(app: FastAPI) -> None:
    """Makes all errors of the application problems; unexpected exceptions are the request log's."""

    @app.exception_handler(Problem)
    async def answer_problem(request: Request, problem: Problem) -> Response:
        return problem.response(request.scope)

    @app.exception_handler(HTTPException)
    async def answer_http_exception(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == HTTPStatus.NOT_FOUND:
            problem = Problem("not_found", f"There is nothing at {path}; /docs lists what there is.")
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} is not possible at {path}; {allowed} is."
            problem = Problem("method_not_allowed", detail, headers=error.headers)
        else:
            problem = Problem(
                "http_error", str(error.detail), status=error.status_code, headers=error.headers
            )
        return problem.response(request.scope)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid_query(request: Request, error: RequestValidationError) -> Response:
        faults = [Fault(pointer=pointer(*fault["loc"]), detail=fault["msg"]) for fault in error.errors()]
        detail = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
        return Problem("invalid_request", f"{detail}.", faults).response(request.scope)
