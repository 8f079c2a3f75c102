"""OpenTelemetry spans of requests, where the operator asks for them.

A span names the route and tells times and sizes. The path as sent, the query, headers, bodies and messages of
exceptions stay out, which is why the spans are made here and not by OpenTelemetry's instrumentation of ASGI.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from serve import __version__
from serve.models.discovery import StartError
from serve.telemetry.summary import RequestSummary

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


def start(provider: "TracerProvider | None" = None) -> "Tracer":
    """The tracer of this process.

    Without a provider a thread sends spans in batches, by OTLP over HTTP, to where the standard OTEL_
    variables say, and the last of them when the process exits; so call it after the fork. Raises StartError
    where the extra `tracing` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartError(
            f"tracing is on, but there is no {error.name}: pip install 'structural-kd[tracing]'"
        ) from error
    if provider is None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("serve", __version__)


def send_span(
    tracer: "Tracer", summary: RequestSummary, headers: Iterable[tuple[bytes, bytes]], seconds: float
) -> None:
    """Sends the span of a request that has just ended, part of the client's trace where there is one."""
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind, StatusCode

    if summary.path in UNTRACED:
        return
    known: dict[str, Any] = {
        "http.request.method": summary.method,
        "http.route": summary.path,
        "http.response.status_code": summary.status or None,
        "error.type": summary.failure,
    }
    if summary.model:
        known |= {f"serve.{name}": value for name, value in summary.model_and_sizes().items()}
    known |= {f"serve.{stage}_seconds": duration for stage, duration in summary.stages.items()}
    span = tracer.start_span(
        f"{summary.method} {summary.path}",
        context=extract({name.decode("latin-1"): value.decode("latin-1") for name, value in headers}),
        kind=SpanKind.SERVER,
        attributes={name: value for name, value in known.items() if value is not None},
        start_time=time.time_ns() - round(1e9 * seconds),
    )
    if summary.status >= 500 or summary.failure:
        span.set_status(StatusCode.ERROR)
    span.end()
