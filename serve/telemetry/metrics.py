"""What `/metrics` shows. Where the environment names a folder, it is the sum over all workers."""

import os
from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

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

# An own registry: prometheus_client's also tells of the one process that happens to answer the scrape.
_registry = CollectorRegistry()


def _counter(name: str, purpose: str, *labels: str) -> Counter:
    return Counter(name, purpose, labels, registry=_registry)


def _gauge(name: str, purpose: str, *labels: str, mode: Any = "livesum") -> Gauge:
    return Gauge(name, purpose, labels, registry=_registry, multiprocess_mode=mode)


def _histogram(name: str, purpose: str, *labels: str, buckets: Iterable[float]) -> Histogram:
    return Histogram(name, purpose, labels, registry=_registry, buckets=tuple(buckets))


_requests = _counter("serve_requests_total", "Answered requests.", "path", "status")
_request_seconds = _histogram(
    "serve_request_seconds", "From a request's head to its answer's end.", "path", buckets=REQUEST_SECONDS
)
_stage_seconds = _histogram(
    "serve_stage_seconds", "Time of a request in each stage.", "stage", buckets=STAGE_SECONDS
)
_sentences = _counter("serve_sentences_total", "Sentences that a model annotated.", "model", "version")
_tokens = _counter("serve_tokens_total", "Tokens that a model annotated.", "model", "version")
_queue_sentences = _gauge("serve_queue_sentences", "Sentences that wait for the model.", "model")
_queue_tokens = _gauge("serve_queue_tokens", "Tokens that wait for the model.", "model")
_batch_sentences = _histogram(
    "serve_batch_sentences", "Sentences in one run of a model.", "model", buckets=BATCH_SENTENCES
)
_batch_tokens = _histogram(
    "serve_batch_tokens", "Tokens in one run of a model.", "model", buckets=BATCH_TOKENS
)
_refusals = _counter("serve_refusals_total", "Requests answered with a problem, by its code.", "code")
_model_info = _gauge(
    "serve_model_info", "1 for a model that is served, 0 for one that was.", "task", "model", "version",
    "default", mode="livemax",
)  # fmt: skip
_reloads = _counter("serve_reloads_total", "Looks for changed bundles that found some.", "result")
_workers = _gauge("serve_workers", "Processes that serve.")


class ServedModel(NamedTuple):
    """The labels of `serve_model_info`."""

    task: str
    model: str
    version: str
    default: bool


_served: set[ServedModel] = set()
_counted: dict[Counter, int] = {}
_observed: defaultdict[Histogram, list[float]] = defaultdict(list)


# Finding a labelled child takes longer than counting in it, so each is looked up once.
@cache
def _of_route(path: str) -> Histogram:
    return _request_seconds.labels(path)


@cache
def _of_answer(path: str, status: int) -> Counter:
    return _requests.labels(path, str(status))


@cache
def _of_stage(stage: str) -> Histogram:
    return _stage_seconds.labels(stage)


@cache
def _of_queue(model: str) -> tuple[Gauge, Gauge]:
    return _queue_sentences.labels(model), _queue_tokens.labels(model)


@cache
def _of_batch(model: str, version: str) -> tuple[Counter, Counter, Histogram, Histogram]:
    return (
        _sentences.labels(model, version),
        _tokens.labels(model, version),
        _batch_sentences.labels(model),
        _batch_tokens.labels(model),
    )


def _of_model(served: ServedModel) -> Gauge:
    return _model_info.labels(served.task, served.model, served.version, str(served.default).lower())


def route(path: str) -> str:
    """The path as a label: one of few, whatever clients ask for."""
    if path in ROUTES:
        return path
    return "/page" if path.startswith("/page/") else "other"


def observe_request(path: str, status: int, seconds: float) -> None:
    """Counts an answered request; the path is that of the request or of its route."""
    label = route(path)
    answer = _of_answer(label, status)
    _counted[answer] = _counted.get(answer, 0) + 1
    _observed[_of_route(label)].append(seconds)


def observe_stages(stages: Mapping[str, float]) -> None:
    """Notes a request's seconds in the stages that it went through."""
    for stage, seconds in stages.items():
        _observed[_of_stage(stage)].append(seconds)


def flush() -> None:
    """Shows what requests noted since the last time. It belongs in the thread that notes.

    A value in the workers' files takes several microseconds to change, as long as some whole layers of a
    request, so requests are added up first.
    """
    for counter, count in _counted.items():
        counter.inc(count)
    _counted.clear()
    for histogram, values in _observed.items():
        _observe_all(histogram, values)
    _observed.clear()


def _observe_all(histogram: Histogram, values: list[float]) -> None:
    """What `histogram.observe` does for each value; prometheus_client has no public way for many at once."""
    buckets = Counts(bisect_left(histogram._upper_bounds, value) for value in values)
    for bucket, count in buckets.items():
        histogram._buckets[bucket].inc(count)
    histogram._sum.inc(sum(values))


def observe_batch(model: str, version: str, sentences: int, tokens: int) -> None:
    """Notes one run of a model."""
    all_sentences, all_tokens, batch_sentences, batch_tokens = _of_batch(model, version)
    all_sentences.inc(sentences)
    all_tokens.inc(tokens)
    batch_sentences.observe(sentences)
    batch_tokens.observe(tokens)


def set_queue(model: str, sentences: int, tokens: int) -> None:
    """Notes what waits for a model in this worker."""
    in_sentences, in_tokens = _of_queue(model)
    in_sentences.set(sentences)
    in_tokens.set(tokens)


def count_refusal(code: str) -> None:
    """Counts an answer that is a problem of this code."""
    _refusals.labels(code).inc()


def count_reload(result: str) -> None:
    """Counts a reload by how it ended."""
    _reloads.labels(result).inc()


def set_models(models: Iterable[ServedModel]) -> None:
    """Shows these models as served by this worker; those shown before and not among them become 0."""
    now = set(models)
    for gone in _served - now:
        _of_model(gone).set(0)
    for model in now:
        _of_model(model).set(1)
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
