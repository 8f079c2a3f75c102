"""A request's way through a model's queue: refusals, deadlines, and clients that go away."""

import asyncio
import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serve.batcher import Batcher, Expired, Job, NeverFits, Refused
from serve.models import Model
from serve.problems import Problem
from serve.visit import Visit


def overloaded(seconds: float) -> Problem:
    """429: come back in so many seconds."""
    later = max(1, math.ceil(seconds))
    detail = f"Too much waits for this model; nothing of the request was done. Try again in {later} s."
    return Problem("overloaded", detail, headers={"Retry-After": str(later)})


def refuse_if_full(models: Sequence[Model]) -> None:
    """Raises `overloaded` where every model of a task is full, whichever the request will name.

    It is asked before the body is read, so that a refusal costs next to nothing when there is most to refuse.
    """
    waits = [model.batcher.full() for model in models]
    seconds = [wait for wait in waits if wait is not None]
    if seconds and len(seconds) == len(waits):
        raise overloaded(min(seconds))


async def answers(
    batcher: Batcher, sentences: Sequence[Sequence[str]], *, seconds: float, receive: Receive, visit: Visit
) -> list[Any]:
    """One answer a sentence, within `seconds`.

    Raises:
        Problem: there is no room, or not in time.
        ClientDisconnect: who asked went away; what still waited is dropped.
    """
    try:
        job = batcher.submit(sentences, timeout=max(0.0, seconds))
    except Refused as refused:
        raise overloaded(refused.retry_after) from None
    except NeverFits as error:
        detail = f"Sentence {error.index} has {error.tokens} tokens; the server runs fewer at once."
        raise Problem("sentence_too_long", detail) from None
    gone = asyncio.ensure_future(_disconnect(receive))
    gone.add_done_callback(lambda _: batcher.cancel(job))
    try:
        found = await job.answers
    except Expired:
        detail = "The time of the request was up; ask for less at once, allow more time or try again later."
        raise Problem("deadline_exceeded", detail) from None
    except asyncio.CancelledError:
        batcher.cancel(job)
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()
        count_stages(visit, job)
    return found


def count_stages(visit: Visit, job: Job) -> None:
    """Tells how long a job waited and ran; a job that never ran only waited."""
    now = perf_counter()
    began = job.began or now
    visit.stages["queue"] = began - job.submitted
    visit.stages["engine"] = now - began


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
