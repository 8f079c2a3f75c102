"""What the routes of one application share, and how a request goes through it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import Scope

from serve.batcher import Ran
from serve.formats import jsonl_stream as stream
from serve.formats.jsonl_stream import Stream
from serve.middleware.request_log import Visit, visit_of
from serve.models.discovery import TASKS, Load
from serve.models.reload import Registry, State
from serve.models.selection import Model
from serve.problems import Problem
from serve.process.protocol import LET_THROUGH
from serve.requests import admission as waiting
from serve.requests.http_input import TIMEOUT_HEADER, check_media_type, parse_body, read_body, seconds_wanted
from serve.requests.items import Item, check_size, items_of, sentences_of
from serve.requests.keys import ApiKeys
from serve.settings import Settings
from serve.telemetry import metrics

INLINE_TOKENS = 2000
"""Answers of up to so many tokens are made in the event loop: it takes a few milliseconds at most."""

GATED = {b"/ner": "ner", b"/parse": "parse"}
"""URLs whose requests are refused as soon as their heads are there, where a queue is full."""

SMOOTHING = 0.05
"""Weight of the last request in the average size of requests."""

FLUSH_SECONDS = 1.0
"""How old the figures of other workers in /metrics may be."""

log = logging.getLogger("serve")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Annotated:
    """A request with the answers to all its sentences."""

    model: Model
    items: Sequence[Item]
    answers: Sequence[Any]
    visit: Visit


@dataclass
class Coming:
    """Requests of a task between the gate and a queue, and how many tokens a request has on average.

    When a flood arrives, hundreds of heads are read before the first of these requests has reached a queue.
    """

    requests: int = 0
    mean_tokens: float = 0.0

    def learn(self, tokens: int) -> None:
        self.mean_tokens += SMOOTHING * (tokens - self.mean_tokens)


class Service:
    """The models, keys and settings of one application; `draining` once it is about to stop."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self.settings = settings
        self.keys: ApiKeys | None = None
        self.draining = False
        self.registry = Registry(settings, load, ran=_tell_run, changed=self._tell_models)
        # Segmenters are not for two threads at once.
        self._segmenting = ThreadPoolExecutor(1, thread_name_prefix="segmenter")
        self._coming = {task: Coming() for task in TASKS}
        self._shown: set[str] = set()
        self._refused: set[str] = set()
        self._beside: list[asyncio.Task[None]] = []

    async def start(self, *, strict: bool = True) -> None:
        """Loads keys and models. Raises StartError where there are none, or one fails and `strict`."""
        if self.settings.api_keys is not None:
            self.keys = ApiKeys.load(self.settings.api_keys)
        await self.registry.start(strict=strict)
        metrics.count_worker()
        self._beside = [asyncio.ensure_future(self._tell_again_and_again())]
        if self.settings.watch_seconds:
            self._beside.append(asyncio.ensure_future(self.registry.watch(self.settings.watch_seconds)))

    async def refresh(self) -> None:
        """Looks for other bundles and keys; what fails to load changes nothing."""
        if self.settings.api_keys is not None:
            try:
                self.keys = ApiKeys.load(self.settings.api_keys)
            except Exception as error:
                log.error("%s; the keys that were read before go on", error)
        await self.registry.refresh()

    def stop(self) -> None:
        """Ends what runs beside requests."""
        for task in self._beside:
            task.cancel()
        self.tell()
        self.registry.state = None

    @property
    def state(self) -> State:
        """The models in use. Raises a `Problem` as long as there are none."""
        if self.registry.state is None:
            detail = "The bundles are not loaded yet, or the server is stopping."
            raise Problem("not_ready", detail, headers={"Retry-After": "1"})
        return self.registry.state

    def gate(self, method: bytes, url: bytes) -> Problem | None:
        """Why a request is refused before anything of it is read; None lets it through."""
        task = GATED.get(url)
        if task is None or method != b"POST" or self.registry.state is None:
            return None
        coming = self._coming[task]
        problem = waiting.refusal(self.registry.state.models.of(task), coming.requests * coming.mean_tokens)
        if problem is None:
            coming.requests += 1
        else:
            metrics.observe_request(f"/{task}", problem.status, 0.0)
            metrics.count_refusal(problem.code)
        return problem

    def arrived(self, scope: Scope) -> None:
        """A request that the gate let through has reached a queue, or its end before that."""
        if scope.pop(LET_THROUGH, False) and (task := GATED.get(scope["raw_path"])):
            self._coming[task].requests -= 1

    async def annotate(self, request: Request, task: str) -> Annotated:
        """Answers a request of a task. Raises a `Problem` that says why not."""
        models, visit = self.state.models, visit_of(request.scope)
        check_media_type(request.headers.get("content-type", ""), "application/json")
        seconds = seconds_wanted(request.headers.get(TIMEOUT_HEADER), self.settings.request_seconds)
        in_time = min(seconds, self.settings.body_seconds)
        body = await read_body(request.scope, request.receive, in_time)
        wanted = parse_body(body)
        model = models.choose(task, wanted.model)
        check_size(wanted, self.settings.limits)
        began = perf_counter()
        visit.stages["read"] = began - visit.began
        if wanted.texts is None:
            items = items_of(wanted, model.segmenter, self.settings.limits)
        else:
            items = await self._in_segmenting(items_of, wanted, model.segmenter, self.settings.limits)
            visit.stages["segment"] = perf_counter() - began
        sentences = sentences_of(items)
        visit.model, visit.version = model.id, model.version
        visit.items, visit.sentences = len(items), len(sentences)
        visit.tokens = sum(map(len, sentences))
        self._coming[task].learn(visit.tokens)
        self.arrived(request.scope)
        answers = await waiting.answers(
            model.batcher,
            sentences,
            seconds=seconds - (perf_counter() - visit.began),
            scope=request.scope,
            visit=visit,
        )
        return Annotated(model, items, answers, visit)

    def stream(self, request: Request, task: str, name: str | None) -> Stream:
        """The answer to a stream, which reads it as it goes. Raises a `Problem` where it cannot begin."""
        check_media_type(request.headers.get("content-type", ""), *stream.ACCEPTED)
        model = self.state.models.choose(task, name)
        visit = visit_of(request.scope)
        visit.model, visit.version = model.id, model.version
        return Stream(model, self.settings, visit, self._segmenting)

    async def _in_segmenting(self, work: Callable[..., Made], *arguments: Any) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._segmenting, work, *arguments)

    def tell(self) -> None:
        """Brings this process's part of the metrics up to date."""
        for model in self.registry.state.models.all if self.registry.state else ():
            metrics.set_queue(model.id, *model.batcher.waiting)
        metrics.flush()

    async def _tell_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.tell()

    def _tell_models(self, state: State) -> None:
        models = state.models
        metrics.set_models(
            metrics.ServedModel(
                model.manifest.task,
                model.id,
                model.version,
                default=models.default(model.manifest.task) is model,
            )
            for model in models.all
        )
        ids = {model.id for model in models.all}
        for gone in self._shown - ids:
            metrics.set_queue(gone, 0, 0)
        self._shown = ids
        metrics.count_reload("refused" if state.refused.keys() - self._refused else "changed")
        self._refused = set(state.refused)


async def written(annotated: Annotated, write: Callable[[], Made]) -> Made:
    """What `write` makes of the answers; in a thread where others would have to wait for it."""
    began = perf_counter()
    if annotated.visit.tokens <= INLINE_TOKENS:
        made = write()
    else:
        made = await asyncio.to_thread(write)
    annotated.visit.stages["write"] = perf_counter() - began
    return made


def _tell_run(model: Model, ran: Ran) -> None:
    metrics.observe_batch(model.id, model.version, ran.sentences, ran.tokens)
