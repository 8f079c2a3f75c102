"""OpenTelemetry spans of requests, where the operator asks for them.

A span names the route and tells times and sizes. The path as sent, the query, headers, bodies and messages of
exceptions stay out, which is why the spans are made here and not by OpenTelemetry's instrumentation of ASGI.
"""

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import __version__
from serve.models.discovery import StartError
from serve.telemetry.metrics import route
from serve.telemetry.summary import RequestSummary

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


def traced(app: ASGIApp, provider: "TracerProvider | None" = None) -> ASGIApp:
    """The application with a span for each request, part of the client's trace where there is one.

    Without a provider a thread sends them, by OTLP over HTTP, to where the standard OTEL_ variables say; so
    call it after the fork. Raises StartError where the extra `tracing` is not installed.
    """
    try:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        tracer = (provider or _exporting()).get_tracer("serve", __version__)
    except ImportError as error:
        raise StartError(
            f"tracing is on, but there is no {error.name}: pip install 'structural-kd[tracing]'"
        ) from error

    async def with_span(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await app(scope, receive, send)
            return
        label = route(scope["path"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with tracer.start_as_current_span(
            f"{scope['method']} {label}",
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "http.route": label},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await app(scope, receive, watched_send)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise

    return with_span


def describe_request(summary: RequestSummary) -> None:
    """Puts model, sizes and the seconds of each stage on the request's span.

    Call it inside a traced application only, before the request ends.
    """
    from opentelemetry.trace import get_current_span

    names = ("model", "version", "sentences", "tokens")
    get_current_span().set_attributes(
        {f"serve.{name}": getattr(summary, name) for name in names}
        | {f"serve.{stage}_seconds": seconds for stage, seconds in summary.stages.items()}
    )


def _exporting() -> "TracerProvider":
    """A provider that sends spans in batches, and what is left of them when the process exits."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
