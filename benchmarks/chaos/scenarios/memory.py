"""Whether a worker's memory grows with the requests that it answered."""

import statistics
from itertools import islice

import gevent

from benchmarks.chaos.figures import Findings, ScenarioError, outcomes
from benchmarks.chaos.request_streams import varied
from benchmarks.chaos.setup import Setup, progress
from loadtest.loads import closed_loop
from loadtest.processes import resident_mb

REQUESTS, WARM_UP = 200_000, 20_000  # in all, and those before the first figure: caches fill in them
QUICK_REQUESTS, QUICK_WARM_UP = 10_000, 2_000
CONNECTIONS = 16
SAMPLE_SECONDS = 5.0
LAST_SAMPLES = 3  # whose median is the end: a request under way at a sample is no growth

# A short queue, so that some requests are refused.
SETTINGS = {"max_queue_sentences": "48"}


def measure(setup: Setup) -> Findings:
    """RSS after a warm-up, in which the caches of words fill up to their bounds, and after all requests."""
    requests, warm_up = (QUICK_REQUESTS, QUICK_WARM_UP) if setup.quick else (REQUESTS, WARM_UP)
    with setup.serving(settings=SETTINGS) as server:
        (worker,) = server.workers()
        stream = varied(setup.sentences, seed=1)
        progress(f"warm-up of {warm_up:,} requests, {resident_mb(worker):.0f} MB")
        closed_loop(server.address, islice(stream, warm_up), connections=CONNECTIONS)
        start = resident_mb(worker)
        progress(f"{start:.0f} MB; {requests - warm_up:,} requests follow")
        samples: list[float] = []
        sampling = gevent.spawn(_sample, worker, samples)
        load = closed_loop(server.address, islice(stream, requests - warm_up), connections=CONNECTIONS)
        sampling.kill()
        samples.append(resident_mb(worker))
        if server.workers() != [worker]:
            raise ScenarioError("the worker ended, its memory can not be compared")
    end = statistics.median(samples[-LAST_SAMPLES:])
    figures = {
        "rss_requests": warm_up + len(load.exchanges),
        "rss_mb_start": start,
        "rss_mb_end": end,
        "rss_mb_most": max(samples),
        "rss_growth": (end - start) / start,
        "rss_samples_mb": [round(sample, 1) for sample in samples],
        "rss_seconds": load.ended - load.started,
        "rss_outcomes": outcomes(load.exchanges),
    }
    return Findings(figures, load.remarks())


def _sample(worker: int, samples: list[float]) -> None:
    """Adds the worker's memory every few seconds, for ever."""
    while True:
        gevent.sleep(SAMPLE_SECONDS)
        samples.append(resident_mb(worker))
        progress(f"{samples[-1]:.0f} MB")
