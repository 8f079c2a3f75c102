"""Which spans requests leave, and that no word of a user is in them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.models.discovery import StartError
from serve.telemetry import tracing
from serve.telemetry.summary import RequestSummary

ROOT = Path(__file__).parents[2]
SECRET = "SecretWord"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as the application would; `/parse` fails, and `/ner/stream` breaks."""
    if scope["path"] == "/ner":
        stages = {"read": 0.001, "engine": 0.25}
        tracing.describe_request(
            RequestSummary(model="names", version="2", sentences=3, tokens=40, stages=stages)
        )
    if scope["path"] == "/ner/stream":
        raise ValueError(SECRET)
    status = 500 if scope["path"] == "/parse" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": scope["query_string"]})


@contextmanager
def serving(app: ASGIApp) -> Iterator[httpx.Client]:
    """A client of the application over a real socket. When it ends, every request has ended."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def spans_of(ask: Callable[[httpx.Client], object]) -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with serving(tracing.traced(answer, provider)) as client:
        ask(client)
    return exporter.get_finished_spans()


def test_a_request_leaves_one_span_with_route_status_stages_and_sizes() -> None:
    (span,) = spans_of(lambda client: client.post("/ner", params={"q": SECRET}, json={"texts": [SECRET]}))
    assert (span.name, span.kind, span.status.status_code) == (
        "POST /ner", SpanKind.SERVER, StatusCode.UNSET,
    )  # fmt: skip
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/ner",
        "http.response.status_code": 200,
        "serve.model": "names",
        "serve.version": "2",
        "serve.sentences": 3,
        "serve.tokens": 40,
        "serve.read_seconds": 0.001,
        "serve.engine_seconds": 0.25,
    }
    assert span.parent is None


def test_a_client_s_trace_goes_on() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    (span,) = spans_of(lambda client: client.post("/ner", headers=headers))
    assert span.context
    assert span.parent
    assert format_trace_id(span.context.trace_id) == trace
    assert format_span_id(span.parent.span_id) == parent


@pytest.mark.parametrize("path", ["/ner", "/ner/stream", "/parse", f"/{SECRET}"])
def test_no_path_query_header_body_or_message_is_in_a_span(path: str) -> None:
    def ask(client: httpx.Client) -> None:
        client.post(
            path,
            params={SECRET: SECRET},
            json={"texts": [SECRET]},
            headers={"User-Agent": SECRET, "Cookie": SECRET, "X-Request-Id": SECRET, "Host": SECRET},
        )

    (span,) = spans_of(ask)
    assert SECRET not in span.to_json()


def test_a_failure_is_marked_by_status_or_by_the_type_of_its_exception() -> None:
    answered, broken = spans_of(lambda client: [client.post("/parse"), client.post("/ner/stream")])
    assert (answered.attributes or {})["http.response.status_code"] == 500
    assert (broken.attributes or {})["error.type"] == "ValueError"
    for span in (answered, broken):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert not span.events


def test_health_and_metrics_leave_no_span() -> None:
    paths = ("/livez", "/readyz", "/metrics")
    assert spans_of(lambda client: [client.get(path) for path in paths]) == ()


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(
        StartError, match=r"no opentelemetry\.sdk\.trace: pip install 'structural-kd\[tracing\]'"
    ):
        tracing.traced(answer)


ONE_REQUEST = """
import asyncio
from serve.telemetry.tracing import traced

async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})

async def ignore(message):
    pass

scope = {"type": "http", "method": "POST", "path": "/ner", "headers": []}
asyncio.run(traced(answer)(scope, None, ignore))
"""


def test_spans_reach_the_collector_that_the_standard_variables_name_before_the_process_ends() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_SERVICE_NAME": "taggers",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        ended = subprocess.run(
            [sys.executable, "-c", ONE_REQUEST],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        collector.shutdown()
        thread.join(20)
        collector.server_close()
    assert (ended.returncode, ended.stderr) == (0, "")
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"POST /ner" in body
    assert b"taggers" in body
