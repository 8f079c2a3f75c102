"""A request's headers and body, read within their limits of time and size."""

import asyncio
import math

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from serve.problems import Fault, Problem, pointer
from serve.process.protocol import BODY_IS_THERE
from serve.schemas import AnnotationRequest

TIMEOUT_HEADER = "X-Request-Timeout"
LEAST_SECONDS = 0.05
"""The shortest time that a request may ask for; in less than that the answer would be a matter of luck."""

FAULTS_SHOWN = 20


def check_media_type(content_type: str, *wanted: str) -> None:
    """Raises a `Problem` unless the body is declared as one of `wanted`; it recommends the first."""
    declared = content_type.partition(";")[0].strip().lower()
    if declared not in wanted and not (wanted[0] == "application/json" and declared.endswith("+json")):
        detail = f"The content type is {declared!r}; send the header `Content-Type: {wanted[0]}`."
        raise Problem("unsupported_media_type", detail)


def seconds_wanted(header: str | None, most: float) -> float:
    """The time that a request may take: what its header says, but not more than the server gives."""
    if header is None:
        return most
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not LEAST_SECONDS <= seconds < math.inf:
        detail = f"{TIMEOUT_HEADER} is {header!r}; send seconds from {LEAST_SECONDS}, such as 2.5."
        raise Problem("invalid_timeout", detail)
    return min(seconds, most)


async def read_body(scope: Scope, receive: Receive, seconds: float) -> bytes:
    """The whole body. Raises a `Problem` where it takes too long, ClientDisconnect where it breaks off."""
    if BODY_IS_THERE in scope:
        return await _whole_body(receive)
    try:
        async with asyncio.timeout(seconds):
            return await _whole_body(receive)
    except TimeoutError:
        detail = f"After {seconds:g} s the body is not complete; send it faster, or less of it."
        raise Problem("body_timeout", detail, headers={"Connection": "close"}) from None


async def _whole_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def parse_body(body: bytes) -> AnnotationRequest:
    """The request that a body says. Raises a `Problem` that names what is wrong with it."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(
            "invalid_encoding", f"Byte {error.start} is not UTF-8; JSON is sent as UTF-8."
        ) from None
    try:
        return AnnotationRequest.model_validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem("malformed_json", f"{faults[0]['msg']}.") from None
        errors = [
            Fault(pointer=pointer(*fault["loc"]), detail=fault["msg"]) for fault in faults[:FAULTS_SHOWN]
        ]
        detail = "; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in errors[:3])
        raise Problem("invalid_request", f"{detail}.", errors) from None
