"""A request's way through a model's queue: refusals, deadlines, and clients that go away."""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any, cast

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from serve.batcher import Batcher, Expired, Job, Refused
from serve.middleware.request_log import Visit
from serve.models.selection import Model
from serve.problems import Problem
from serve.process.protocol import ON_LOST, OnLost


def overloaded(seconds: float) -> Problem:
    """429: come back in so many seconds."""
    later = max(1, math.ceil(seconds))
    detail = f"Too much waits for this model; nothing of the request was done. Try again in {later} s."
    return Problem("overloaded", detail, headers={"Retry-After": str(later)})


def refusal(models: Sequence[Model], coming: float) -> Problem | None:
    """`overloaded` where every model of a task is full, whichever the request names.

    `coming` are the tokens, about, of requests that were let through and have not reached a queue.
    """
    waits = [model.batcher.full(coming) for model in models]
    seconds = [wait for wait in waits if wait is not None]
    return overloaded(min(seconds)) if seconds and len(seconds) == len(waits) else None


async def answers(
    batcher: Batcher, sentences: Sequence[Sequence[str]], *, seconds: float, scope: Scope, visit: Visit
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
    on_lost: OnLost = scope.get(ON_LOST) or OnLost()
    cancel = partial(batcher.cancel, job)
    on_lost.add(cancel)
    try:
        return await job.answers
    except Expired:
        detail = "The time of the request was up; ask for less at once, allow more time or try again later."
        raise Problem("deadline_exceeded", detail) from None
    except asyncio.CancelledError:
        if not cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
            raise ClientDisconnect from None
        batcher.cancel(job)
        raise
    finally:
        on_lost.discard(cancel)
        _count_stages(visit, job)


def _count_stages(visit: Visit, job: Job) -> None:
    """Tells how long a job waited and ran; a job that never ran only waited."""
    now = perf_counter()
    began = job.began or now
    visit.stages["queue"] = began - job.submitted
    visit.stages["engine"] = now - began
