"""Log lines, as JSON or for people. Of an exception under a request they show the type and the places only.

Its message, those of the exceptions behind it, and its notes may hold a user's words.
"""

import json
import logging
import logging.config
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

from serve.telemetry.summary import RequestSummary

Format = Literal["json", "text"]

FRAMES_SHOWN = 30
ERRORS_SHOWN = 10

log = logging.getLogger("serve")
_requests = logging.getLogger("serve.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[!#-<>-~]+")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, pid, message, the record's `fields`, its `errors`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": _message(record),
        }
        line.update(getattr(record, "fields", ()))
        if errors := _errors(record):
            line["errors"] = errors
        try:
            return to_json(line, fallback=str).decode()
        except PydanticSerializationError:  # half of a surrogate pair, as in the name of a file
            return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """The same for people; the second and later lines of an event are indented."""

    def format(self, record: logging.LogRecord) -> str:
        lines = _message(record).splitlines() or [""]
        fields = "".join(f" {name}={_plain(value)}" for name, value in getattr(record, "fields", {}).items())
        lines[:1] = [f"{_time(record)} {record.levelname} {record.name}[{record.process}] {lines[0]}{fields}"]
        for error in _errors(record):
            lines.append(f"{error['type']}: {error['message']}" if "message" in error else error["type"])
            lines.extend(f"  at {frame}" for frame in error["frames"])
        return "\n    ".join(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in lines)


def configure(format: Format = "json", level: str = "INFO") -> dict[str, Any]:
    """Makes every logger write such lines to stderr; returns gunicorn's `logconfig_dict` for the same."""
    silent = {"level": level, "handlers": [], "propagate": False}
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": JsonLines if format == "json" else TextLines}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}
        },
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            # uvicorn-worker gives gunicorn's handlers to uvicorn's loggers; without one, access is silent.
            "gunicorn.error": silent | {"handlers": ["stderr"]},
            "gunicorn.access": silent,
            "uvicorn.error": silent | {"handlers": ["stderr"]},
            "uvicorn.access": silent,
        },
    }
    logging.config.dictConfig(config)
    logging.captureWarnings(True)
    # What these would print has an exception's message, or the arguments of a call of logging.
    logging.raiseExceptions = False
    threading.excepthook = _log_thread
    return config


def log_request(summary: RequestSummary, seconds: float) -> None:
    """Writes the one line of a request, without the fields that are not known."""
    fields = {
        "method": summary.method,
        "path": summary.path,
        "status": summary.status,
        "ms": round(seconds * 1000, 3),
        "bytes_in": summary.bytes_in,
        "bytes_out": summary.bytes_out,
        "request_id": summary.id,
        "client": summary.client,
        "key": summary.key,
    }
    if summary.model:
        fields |= summary.model_and_sizes()
    # A record made by hand: `info` would look for its caller, which takes as long as all the rest.
    record = logging.LogRecord("serve.access", logging.INFO, "", 0, "request", None, None)
    record.fields = {name: value for name, value in fields.items() if value is not None}
    _requests.handle(record)


def request_id(given: str | None) -> str:
    """The client's `X-Request-Id` where that is fit for logs and headers, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return os.urandom(12).hex()


def _time(record: logging.LogRecord) -> str:
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{second}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage().strip()
    if record.exc_info or record.name == "asyncio":
        # asyncio goes on to describe the task, and with it the exception's message.
        return message.partition("\n")[0]
    return message


def _errors(record: logging.LogRecord) -> list[dict[str, Any]]:
    if not record.exc_info or record.exc_info[1] is None:
        return []
    # What gunicorn itself catches is a worker that does not start, and its message is for the operator.
    shown = record.name == "gunicorn.error"
    return [
        {"type": type(error).__qualname__}
        | ({"message": str(error)} if shown else {})
        | {"frames": _frames(error)}
        for error in islice(_chain(record.exc_info[1], set()), ERRORS_SHOWN)
    ]


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """The exception, those that it groups, and those that it came from."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _chain(each, seen)
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before, seen)


def _frames(error: BaseException) -> list[str]:
    """The innermost frames, outermost first, as `serve/app.py:33 ner`."""
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return frames[-FRAMES_SHOWN:]


def _plain(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        log.error("a thread ended with an exception", exc_info=ended.exc_value)
