"""Whether a worker's memory grows with the requests that it answered."""

import asyncio
import statistics
from collections.abc import Iterator
from itertools import islice

from benchmarks.chaos.figures import Findings, ScenarioError, kinds
from benchmarks.chaos.loads import Run, closed_loop, drive
from benchmarks.chaos.serving import Served, Setup, serving
from benchmarks.chaos.traffic import varied
from loadtest.processes import resident_mb
from loadtest.wire import Request

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
    with serving(setup, settings=SETTINGS) as served:
        (worker,) = served.workers()
        stream = varied(setup.sentences, seed=1)
        setup.say(f"warm-up of {warm_up:,} requests, {resident_mb(worker):.0f} MB")
        load = closed_loop(
            served.address, islice(stream, warm_up), connections=CONNECTIONS, until=lambda: False
        )
        drive(load)
        start = resident_mb(worker)
        setup.say(f"{start:.0f} MB; {requests - warm_up:,} requests follow")
        run, samples = drive(_sampled(setup, served, worker, islice(stream, requests - warm_up)))
        if served.workers() != [worker]:
            raise ScenarioError("the worker ended, its memory can not be compared")
    end = statistics.median(samples[-LAST_SAMPLES:])
    figures = {
        "rss_requests": warm_up + len(run.outcomes),
        "rss_mb_start": start,
        "rss_mb_end": end,
        "rss_mb_most": max(samples),
        "rss_growth": (end - start) / start,
        "rss_samples_mb": [round(sample, 1) for sample in samples],
        "rss_seconds": run.ended - run.started,
        "rss_outcomes": kinds(run.outcomes),
    }
    return Findings(figures, run.remarks())


async def _sampled(
    setup: Setup, served: Served, worker: int, requests: Iterator[Request]
) -> tuple[Run, list[float]]:
    """The load, and the worker's memory every few seconds and at the end."""
    samples: list[float] = []

    async def sample() -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            samples.append(resident_mb(worker))
            setup.say(f"{samples[-1]:.0f} MB")

    sampling = asyncio.create_task(sample())
    try:
        run = await closed_loop(served.address, requests, connections=CONNECTIONS, until=lambda: False)
    finally:
        sampling.cancel()
    samples.append(resident_mb(worker))
    return run, samples
