"""Which spans requests leave, and that no word of a user is in them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from starlette.types import Receive, Scope, Send

from serve.middleware.request_log import RequestLog
from serve.models.discovery import StartError
from serve.telemetry import tracing
from serve.telemetry.summary import summary_of

ROOT = Path(__file__).parents[2]
SECRET = "SecretWord"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as the application would; `/parse` fails, and `/ner/stream` breaks."""
    summary = summary_of(scope)
    if scope["path"] == "/ner":
        summary.model, summary.version = "names", "2"
        summary.items, summary.sentences, summary.tokens = 1, 3, 40
        summary.stages |= {"read": 0.001, "engine": 0.25}
    if scope["path"] == "/ner/stream":
        raise ValueError(SECRET)
    status = 500 if scope["path"] == "/parse" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": scope["query_string"]})


def spans_of(ask: Callable[[TestClient], object]) -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = tracing.start(provider)
    app = RequestLog(answer, draining=lambda: False, log_each=False, tracer=lambda: tracer)
    ask(TestClient(app))
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
        "serve.items": 1,
        "serve.sentences": 3,
        "serve.tokens": 40,
        "serve.read_seconds": 0.001,
        "serve.engine_seconds": 0.25,
    }
    assert span.parent is None
    assert span.start_time
    assert span.end_time
    assert span.start_time <= span.end_time


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
    def ask(client: TestClient) -> None:
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


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"no opentelemetry\.sdk\.trace: pip install"):
        tracing.start()


ONE_REQUEST = """
from serve.telemetry import tracing
from serve.telemetry.summary import RequestSummary

tracing.send_span(tracing.start(), RequestSummary(method="POST", path="/ner"), [], 0.5)
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
