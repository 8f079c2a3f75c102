"""What log lines hold, and that no word of a user is among it."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.telemetry.logs import request_id

ROOT = Path(__file__).parents[2]
SECRET = "SecretWord"

FAILURES = """
import asyncio, gc, logging, sys, threading, warnings
from serve.telemetry import logs

logs.configure(sys.argv[1])
log = logging.getLogger("serve")

def fail(word):
    try:
        {}[word]
    except KeyError as error:
        failure = ValueError(word, {"text": word})
        failure.add_note(word)
        raise failure from error

def fail_in_context(word):
    try:
        fail(word)
    except ValueError:
        raise LookupError(word)

def fail_in_group(word):
    try:
        fail_in_context(word)
    except LookupError as error:
        raise ExceptionGroup(word, [error, OSError(word)])

word = sys.argv[2]
try:
    fail_in_group(word)
except Exception as error:
    log.exception("caught")
    log.error("given", exc_info=error)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\\n", exc_info=error)
    logging.getLogger("of.another.package").critical("elsewhere", exc_info=True)

async def forget():
    task = asyncio.ensure_future(asyncio.to_thread(fail, word))
    await asyncio.wait([task])

asyncio.run(forget())
gc.collect()

thread = threading.Thread(target=fail, args=(word,))
thread.start()
thread.join()

log.error("%d sentences", word)
"""

EVENTS = """
import logging, sys, warnings
from serve.telemetry import logs
from serve.telemetry.summary import RequestSummary

logs.configure(sys.argv[1])
log = logging.getLogger("serve")
log.info("two\\nlines \\x1b[31m and \\u2028 red")
log.warning("with fields", extra={"fields": {"model": "\\u05e2\\u05d1", "count": 3, "said": "a b\\n"}})
log.info("")
log.info("half \\ud800")
log.debug("not shown")
warnings.warn("old")
known = RequestSummary("r-1", "POST", "/ner", "::1", status=200, bytes_in=10, bytes_out=20)
known.model, known.version, known.items, known.sentences, known.tokens = "ner", "2", 1, 2, 9
logs.log_request(known, seconds=0.0123456)
logs.log_request(RequestSummary("r-2", "GET", status=404, bytes_out=99), seconds=0.001)
"""

SERVER = """
import sys
from gunicorn.app.base import BaseApplication
from serve.telemetry import logs

async def fail(scope, receive, send):
    assert scope["type"] == "http"
    raise ValueError(scope["query_string"].decode())

class Server(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("worker_class", "uvicorn_worker.UvicornWorker")
        self.cfg.set("control_socket_disable", True)
        self.cfg.set("logconfig_dict", logs.configure(sys.argv[1]))

    def load(self):
        return fail

Server().run()
"""


def written(script: str, *arguments: str) -> str:
    """What a process that runs the script writes to stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ended.stdout == ""
    return ended.stderr


def events(lines: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines.removesuffix("\n").split("\n")]
    for event in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert {"level", "logger", "pid", "message"} <= set(event)
    return found


@pytest.mark.parametrize("format", ["json", "text"])
def test_of_an_exception_only_types_and_places_are_logged(format: str) -> None:
    lines = written(FAILURES, format, SECRET)
    assert SECRET not in lines
    for word in ("ExceptionGroup", "LookupError", "ValueError", "KeyError", "OSError", "fail_in_context"):
        assert word in lines


def test_each_exception_is_one_event_with_those_behind_it_in_order() -> None:
    found = events(written(FAILURES, "json", SECRET))
    assert [(event["logger"], event["message"]) for event in found] == [
        ("serve", "caught"),
        ("serve", "given"),
        ("uvicorn.error", "Exception in ASGI application"),
        ("of.another.package", "elsewhere"),
        ("asyncio", "Task exception was never retrieved"),
        ("serve", "a thread ended with an exception"),
    ]
    errors = found[0]["errors"]
    assert [error["type"] for error in errors] == [
        "ExceptionGroup", "LookupError", "ValueError", "KeyError", "OSError",
    ]  # fmt: skip
    assert [frame.rpartition(" ")[2] for frame in errors[0]["frames"]] == ["<module>", "fail_in_group"]
    assert re.fullmatch(r"<string>:\d+ fail", errors[2]["frames"][-1])
    assert [error["type"] for error in found[5]["errors"]] == ["ValueError", "KeyError"]


def test_an_event_is_one_line_of_json_whatever_its_message() -> None:
    found = events(written(EVENTS, "json"))
    assert [event["message"].partition(":")[0] for event in found] == [
        "two\nlines \x1b[31m and \u2028 red", "with fields", "", "half \ud800", "<string>", "request",
        "request",
    ]  # fmt: skip
    assert (found[1]["level"], found[1]["model"], found[1]["count"]) == ("warning", "עב", 3)


def test_the_access_line_has_these_fields_and_leaves_out_unknown_ones() -> None:
    full, short = events(written(EVENTS, "json"))[-2:]
    for event in (full, short):
        del event["time"], event["pid"]
    common = {"level": "info", "logger": "serve.access", "message": "request"}
    assert full == common | {
        "method": "POST", "path": "/ner", "status": 200, "ms": 12.346, "bytes_in": 10, "bytes_out": 20,
        "request_id": "r-1", "client": "::1", "model": "ner", "version": "2", "items": 1, "sentences": 2,
        "tokens": 9,
    }  # fmt: skip
    assert short == common | {
        "method": "GET", "path": "other", "status": 404, "ms": 1.0, "bytes_in": 0, "bytes_out": 99,
        "request_id": "r-2",
    }  # fmt: skip


def test_in_text_an_event_begins_with_its_time_and_nothing_else_can_look_like_one() -> None:
    lines = written(EVENTS, "text").removesuffix("\n").split("\n")
    begin = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING) [a-z.]+\[\d+\]")
    assert all(begin.match(line) or line.startswith("    ") for line in lines)
    assert "\x1b" not in "".join(lines)
    first, second = lines[:2]
    assert first.endswith(" two")
    assert second == r"    lines \x1b[31m and "
    assert r'with fields model="\u05e2\u05d1" count=3 said="a b\n"' in "\n".join(lines)


def test_master_and_workers_of_gunicorn_log_in_one_format_and_the_query_stays_out() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, "json"], cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert server.stderr
    lines = ""
    try:
        while not (listening := re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", lines)):
            line = server.stderr.readline()
            assert line, lines
            lines += line
        assert httpx.get(listening[1], params={"q": SECRET}, trust_env=False, timeout=30).status_code == 500
        server.send_signal(signal.SIGTERM)
        lines += server.stderr.read()
    finally:
        server.kill()
        server.communicate()
    found = events(lines)
    assert SECRET not in lines
    (failure,) = [event for event in found if "errors" in event]
    assert failure["logger"] == "uvicorn.error"
    assert [error["type"] for error in failure["errors"]] == ["ValueError"]
    assert {event["pid"] for event in found} == {server.pid, failure["pid"]}


def test_the_reason_why_a_worker_does_not_start_is_logged_in_full() -> None:
    broken = SERVER.replace("return fail", 'raise RuntimeError("the bundle is from another version")')
    lines = [line for line in written(broken, "json").split("\n") if line.startswith("{")]
    said = [error for event in events("\n".join(lines)) for error in event.get("errors", [])]
    assert {error["type"]: error["message"] for error in said} == {
        "RuntimeError": "the bundle is from another version"
    }


@pytest.mark.parametrize("given", ["a", "A-1_2.b", "f" * 64])
def test_the_client_may_name_its_request(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "f" * 65, "a b", "a\n", "é", "a/b", '"'])
def test_a_request_without_a_fit_name_gets_a_new_one(given: str | None) -> None:
    names = {request_id(given) for _ in range(100)}
    assert len(names) == 100
    assert all(request_id(name) == name != given for name in names)
