"""What the routes of one application share, and a request's way to its answer."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING

from fastapi import Request

from serve.formats import jsonl_stream
from serve.middleware.api_keys import ApiKeys
from serve.models.discovery import Load
from serve.models.reload import Registry
from serve.models.selection import Models
from serve.problems import Problem
from serve.requests.admission import Admission
from serve.requests.http_input import check_length, check_media_type, parse_body, read_body, seconds_wanted
from serve.requests.items import AnsweredRequest, check_size, records_of, sentences_of
from serve.settings import Settings
from serve.telemetry import metrics, tracing
from serve.telemetry.summary import summary_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

QUEUE_METRIC_SECONDS = 1.0
"""How old the queues of other workers in /metrics may be."""

log = logging.getLogger("serve")


class Service:
    """The models, keys and settings of one application; `draining` once it is about to stop."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self.settings = settings
        self.keys: ApiKeys | None = None
        self.draining = False
        self.tracer: Tracer | None = None
        self.registry = Registry(settings, load)
        self.admission = Admission(self.registry.models_of)
        # Segmenters are not for two threads at once.
        self._segmenting = ThreadPoolExecutor(1, thread_name_prefix="segmenter")
        self._background: list[asyncio.Task[None]] = []

    async def start(self, *, strict: bool = True) -> None:
        """Loads keys and models. Raises StartError where there are none, or one fails and `strict`."""
        if self.settings.tracing:
            self.tracer = tracing.start()
        if self.settings.api_keys is not None:
            self.keys = ApiKeys.load(self.settings.api_keys)
        await self.registry.start(strict=strict)
        metrics.count_worker()
        self._background = [asyncio.ensure_future(self._publish_queues())]
        if self.settings.watch_seconds:
            self._background.append(asyncio.ensure_future(self.registry.watch(self.settings.watch_seconds)))

    async def refresh(self) -> None:
        """Looks for other bundles and keys; those that fail to load change nothing."""
        if self.settings.api_keys is not None:
            try:
                self.keys = ApiKeys.load(self.settings.api_keys)
            except Exception as error:
                log.error("%s; the keys that were read before go on", error)
        await self.registry.refresh()

    def stop(self) -> None:
        """Ends the background tasks."""
        for task in self._background:
            task.cancel()
        self.registry.models = None

    @property
    def models(self) -> Models:
        """The models in use. Raises a `Problem` as long as there are none."""
        if self.registry.models is None:
            detail = "The bundles are not loaded yet, or the server is stopping."
            raise Problem("not_ready", detail, headers={"Retry-After": "1"})
        return self.registry.models

    async def annotate(self, request: Request, task: str) -> AnsweredRequest:
        """Answers a request of a task. Raises a `Problem` that says why not."""
        models, summary = self.models, summary_of(request.scope)
        settings, limits = self.settings, self.settings.limits
        check_length(request.headers, limits.body_bytes)
        check_media_type(request.headers, "application/json")
        seconds = seconds_wanted(request.headers, settings.request_seconds)
        body = await read_body(
            request.scope,
            request.receive,
            seconds=min(seconds, settings.body_seconds),
            most=limits.body_bytes,
        )
        asked = parse_body(body)
        model = models.choose(task, asked.model)
        check_size(asked, limits)
        began = perf_counter()
        summary.stages["read"] = began - summary.began
        if asked.texts is None:
            records = records_of(asked, model.reading, limits)
        else:
            loop = asyncio.get_running_loop()
            records = await loop.run_in_executor(self._segmenting, records_of, asked, model.reading, limits)
            summary.stages["segment"] = perf_counter() - began
        sentences = sentences_of(records)
        summary.model, summary.version = model.id, model.version
        summary.items, summary.sentences = len(records), len(sentences)
        summary.tokens = sum(map(len, sentences))
        seconds_left = seconds - (perf_counter() - summary.began)
        answers = await self.admission.answers(model, sentences, seconds=seconds_left, scope=request.scope)
        return AnsweredRequest(model, records, answers, summary)

    def stream(self, request: Request, task: str, name: str | None) -> jsonl_stream.Stream:
        """The answer to a stream, which reads it as it goes. Raises a `Problem` where it cannot begin."""
        check_media_type(request.headers, *jsonl_stream.ACCEPTED)
        model, summary = self.models.choose(task, name), summary_of(request.scope)
        summary.model, summary.version = model.id, model.version
        return jsonl_stream.Stream(model, self.settings, summary, self._segmenting)

    def publish_queues(self) -> None:
        """Brings this process's queues in the metrics up to date."""
        for model in self.registry.models.all if self.registry.models else ():
            metrics.set_queue(model.id, *model.batcher.waiting)

    async def _publish_queues(self) -> None:
        while True:
            self.publish_queues()
            await asyncio.sleep(QUEUE_METRIC_SECONDS)
