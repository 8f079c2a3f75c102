"""Admission: which requests come into a model's queue, and which leave it without an answer.

A request is refused as soon as its head is there, while a queue is full. One that is let in is counted until
it has reached the queue, or its answer or its connection has ended before that: when a flood arrives,
hundreds of heads are read before the first of these requests has reached a queue.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, cast

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from serve.batcher import Expired, Refused
from serve.models.discovery import TASKS
from serve.models.selection import Model
from serve.problems import Problem
from serve.telemetry import metrics
from serve.telemetry.summary import summary_of

CONNECTION = "serve.connection"
"""The key of a request's scope that holds its `ClientConnection`."""

SMOOTHING = 0.05
"""Weight of the last request in the average size of requests."""

_TASK_OF_URL = {f"/{task}".encode(): task for task in TASKS}


class ClientConnection:
    """The connection of a client, and the callbacks for its loss.

    Waiting for `http.disconnect` instead would take a task for each request, a tenth of its cost.
    """

    def __init__(self) -> None:
        self._lost = False
        self._callbacks: set[Callable[[], None]] = set()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Calls back when the connection is lost; at once, where it already is."""
        if self._lost:
            callback()
        else:
            self._callbacks.add(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        self._callbacks.discard(callback)

    def lost(self) -> None:
        self._lost = True
        for callback in tuple(self._callbacks):
            callback()


class Admission:
    """The way into the queues of an application's models; `models` gives those of a task."""

    def __init__(self, models: Callable[[str], Sequence[Model]]) -> None:
        self._models = models
        # Connections, each of which has one request at a time that is not in a queue yet.
        self._arriving: dict[str, set[ClientConnection]] = {task: set() for task in TASKS}
        self._mean_tokens = dict.fromkeys(TASKS, 0.0)

    def refusal(self, connection: ClientConnection, method: bytes, url: bytes) -> Problem | None:
        """`overloaded` where every model of the task is full, whichever the body will name; else None.

        A request that is not refused counts as arriving until `left`.
        """
        task = _TASK_OF_URL.get(url) if method == b"POST" else None
        if task is None:
            return None
        arriving_tokens = len(self._arriving[task]) * self._mean_tokens[task]
        waits = [model.batcher.full(arriving_tokens) for model in self._models(task)]
        seconds = [wait for wait in waits if wait is not None]
        if not seconds or len(seconds) < len(waits):
            self._arriving[task].add(connection)
            return None
        problem = _overloaded(min(seconds))
        metrics.observe_request(f"/{task}", problem.status, 0.0)
        metrics.count_refusal(problem.code)
        return problem

    def left(self, connection: ClientConnection) -> None:
        """The connection's request has reached a queue, or ended before that."""
        for arriving in self._arriving.values():
            arriving.discard(connection)

    async def answers(
        self, model: Model, sentences: Sequence[Sequence[str]], *, seconds: float, scope: Scope
    ) -> list[Any]:
        """One answer a sentence, within `seconds`.

        Raises:
            Problem: there is no room, or not in time.
            ClientDisconnect: the client went away; its sentences that still waited are dropped.
        """
        connection: ClientConnection = scope.get(CONNECTION) or ClientConnection()
        self.left(connection)
        task, summary = model.manifest.task, summary_of(scope)
        self._mean_tokens[task] += SMOOTHING * (summary.tokens - self._mean_tokens[task])
        batcher = model.batcher
        try:
            job = batcher.submit(sentences, timeout=max(0.0, seconds))
        except Refused as refused:
            raise _overloaded(refused.retry_after) from None
        cancel = partial(batcher.cancel, job)
        connection.on_lost(cancel)
        try:
            return await job.answers
        except Expired:
            detail = (
                "The time of the request was up; ask for less at once, allow more time or try again later."
            )
            raise Problem("deadline_exceeded", detail) from None
        except asyncio.CancelledError:
            if not cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                raise ClientDisconnect from None
            batcher.cancel(job)
            raise
        finally:
            connection.forget(cancel)
            now = perf_counter()
            began = job.began or now  # a job that never ran only waited
            summary.stages |= {"queue": began - job.submitted, "engine": now - began}


def _overloaded(seconds: float) -> Problem:
    """429: come back in so many seconds."""
    later = max(1, math.ceil(seconds))
    detail = f"Too much waits for this model; nothing of the request was done. Try again in {later} s."
    return Problem("overloaded", detail, headers={"Retry-After": str(later)})
