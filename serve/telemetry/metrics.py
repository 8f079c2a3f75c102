"""The metrics of `/metrics`. Where the environment names a folder, they are the sums over all workers.

Several workers count in files: 28 µs for a request with all its stages. Only private fields of
prometheus_client would be faster, by adding up many requests before they are written (3 µs).
"""

import os
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from serve.telemetry.metrics_folder import VARIABLE

# prometheus_client decides at its import too.
MANY_WORKERS = VARIABLE in os.environ
ROUTES = frozenset(
    ("/", "/page", "/ner", "/parse", "/ner/stream", "/parse/stream", "/models", "/info", "/livez", "/readyz",
     "/metrics", "/docs", "/openapi.json")
)  # fmt: skip
REQUEST_SECONDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
)  # fmt: skip
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
BATCH_SENTENCES = tuple(2**power for power in range(11))
BATCH_TOKENS = tuple(2**power for power in range(3, 16))

# Files of several workers hold no times of creation; one process alone shows the same series.
disable_created_metrics()  # type: ignore[no-untyped-call]

# An own registry: prometheus_client's also shows the one process that happens to answer the scrape.
_registry = CollectorRegistry()


_counter = partial(Counter, registry=_registry)
_gauge = partial(Gauge, registry=_registry, multiprocess_mode="livesum")
_histogram = partial(Histogram, registry=_registry)

# The calls of `labels` are cached where they come with every request or batch: another 15 µs.
_requests = cache(_counter("serve_requests_total", "Answered requests.", ["path", "status"]).labels)
_request_seconds = cache(
    _histogram(
        "serve_request_seconds", "From a request's head to its answer's end.", ["path"],
        buckets=REQUEST_SECONDS,
    ).labels
)  # fmt: skip
_stage_seconds = cache(
    _histogram(
        "serve_stage_seconds", "Time of a request in each stage.", ["stage"], buckets=STAGE_SECONDS
    ).labels
)
_annotated = ["model", "version"]
_sentences = cache(_counter("serve_sentences_total", "Sentences that a model annotated.", _annotated).labels)
_tokens = cache(_counter("serve_tokens_total", "Tokens that a model annotated.", _annotated).labels)
_batch_sentences = cache(
    _histogram(
        "serve_batch_sentences", "Sentences in one run of a model.", ["model"], buckets=BATCH_SENTENCES
    ).labels
)
_batch_tokens = cache(
    _histogram("serve_batch_tokens", "Tokens in one run of a model.", ["model"], buckets=BATCH_TOKENS).labels
)
_queue_sentences = _gauge("serve_queue_sentences", "Sentences that wait for the model.", ["model"])
_queue_tokens = _gauge("serve_queue_tokens", "Tokens that wait for the model.", ["model"])
_refusals = _counter("serve_refusals_total", "Requests answered with a problem, by its code.", ["code"])
_model_info = _gauge(
    "serve_model_info", "1 for a model that is served, 0 for one that was.",
    ["task", "model", "version", "default"], multiprocess_mode="livemax",
)  # fmt: skip
_reloads = _counter("serve_reloads_total", "Looks for changed bundles that found some.", ["result"])
_workers = _gauge("serve_workers", "Processes that serve.")


class ServedModel(NamedTuple):
    """The labels of `serve_model_info`."""

    task: str
    model: str
    version: str
    default: bool


_served: set[ServedModel] = set()


def route(path: str) -> str:
    """The path as a label: one of few, whatever clients ask for."""
    if path in ROUTES:
        return path
    return "/page" if path.startswith("/page/") else "other"


def observe_request(path: str, status: int, seconds: float) -> None:
    """Counts an answered request of a route."""
    _requests(path, status).inc()
    _request_seconds(path).observe(seconds)


def observe_stages(stages: Mapping[str, float]) -> None:
    """Counts a request's seconds in the stages that it went through."""
    for stage, seconds in stages.items():
        _stage_seconds(stage).observe(seconds)


def observe_batch(model: str, version: str, sentences: int, tokens: int) -> None:
    """Counts one run of a model."""
    _sentences(model, version).inc(sentences)
    _tokens(model, version).inc(tokens)
    _batch_sentences(model).observe(sentences)
    _batch_tokens(model).observe(tokens)


def set_queue(model: str, sentences: int, tokens: int) -> None:
    """Shows how much waits for a model in this worker."""
    _queue_sentences.labels(model).set(sentences)
    _queue_tokens.labels(model).set(tokens)


def count_refusal(code: str) -> None:
    """Counts an answer that is a problem of this code."""
    _refusals.labels(code).inc()


def count_reload(result: str) -> None:
    """Counts a reload by how it ended."""
    _reloads.labels(result).inc()


def set_models(models: Iterable[ServedModel]) -> None:
    """Shows these models as served by this worker; those shown before and not among them become 0."""
    now = set(models)
    for served in _served | now:
        *labels, default = served
        _model_info.labels(*labels, str(default).lower()).set(served in now)
    for gone in {served.model for served in _served} - {served.model for served in now}:
        set_queue(gone, 0, 0)
    _served.clear()
    _served.update(now)


def count_worker() -> None:
    """Counts this process among those that serve, until the master marks it dead."""
    _workers.set(1)


def exposition(accept: str) -> tuple[bytes, str]:
    """The metrics and their content type, in the format that a scraper's `Accept` header asks for.

    It reads a file or two of every worker, so it belongs in a thread.
    """
    registry = _registry
    if MANY_WORKERS:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        encode, content_type = choose_encoder("")
    return encode(registry), content_type
