"""Bulk work over one connection: JSON lines in, JSON lines out, in the same order.

A line is what `python -m structural_kd annotate` takes and gives: `{"text": …}`, `{"tokens": […]}` or
`{"sentences": [[…], …]}`, with other keys carried to the result. Lines are read while results are written.
At most LINES_AT_ONCE are on their way, and they fill at most QUEUE_SHARE of the model's queue; beyond that
nothing is read until the client has taken results, or the model has room.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.batcher import Job, Refused
from serve.formats.json_results import write_line
from serve.models.selection import Model
from serve.schemas import LineFault, StreamFault
from serve.settings import Settings
from serve.telemetry.summary import RequestSummary
from structural_kd.annotate.lines import Line
from structural_kd.annotate.readers import ReaderSettings, json_record
from structural_kd.annotate.records import Record, RecordError

MEDIA_TYPE = "application/jsonl"
ACCEPTED = (MEDIA_TYPE, "application/x-ndjson", "application/json")
LINES_AT_ONCE = 64
QUEUE_SHARE = 0.5

log = logging.getLogger("serve")


@dataclass(frozen=True)
class Submitted:
    """A record whose sentences are on their way through the model."""

    record: Record
    job: Job


Pending = LineFault | Submitted
"""A line whose result is not written yet."""


class Stream(Response):
    """The answer to a stream; it reads the request's body while it is sent.

    Args:
        segmenting: where the tokens of raw texts are found.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, model: Model, settings: Settings, summary: RequestSummary, segmenting: Executor
    ) -> None:
        self.status_code = 200
        self.background = None
        # What stands between must not wait for the end of a stream before it passes on the beginning.
        self.init_headers({"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        self._model = model
        self._limits = settings.limits
        self._idle = settings.stream_idle_seconds
        self._summary = summary
        self._segmenting = segmenting
        self._jobs: set[Job] = set()  # whose results are not written yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pending: asyncio.Queue[Pending | None] = asyncio.Queue(LINES_AT_ONCE)
        reader = asyncio.ensure_future(self._read(receive, pending))
        await asyncio.sleep(0)  # where the client waits for `100 Continue`, the reader asks for it first
        writer = asyncio.ensure_future(self._write(send, pending))
        try:
            await asyncio.gather(reader, writer)
        finally:
            # Whatever ended it, others get the places of what nobody will read.
            for job in self._jobs:
                self._model.batcher.cancel(job)
            reader.cancel()
            writer.cancel()

    async def _read(self, receive: Receive, pending: "asyncio.Queue[Pending | None]") -> None:
        """Puts in every line, and None at the end."""
        number = 0
        try:
            async for lines in split(self._chunks(receive), self._limits.line_bytes):
                for first in range(0, len(lines), LINES_AT_ONCE):
                    some = lines[first : first + LINES_AT_ONCE]
                    for made in await asyncio.get_running_loop().run_in_executor(
                        self._segmenting, _records, some, self._model.reading
                    ):
                        number += 1
                        await pending.put(await self._begun(made))
        except TimeoutError:
            message = f"nothing was sent for {self._idle:g} s; the stream is ended"
            await pending.put(_fault(number + 1, "stream_idle", message))
        await pending.put(None)

    async def _chunks(self, receive: Receive) -> AsyncIterator[bytes]:
        more = True
        while more:
            async with asyncio.timeout(self._idle):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def _begun(self, made: Record | LineFault) -> Pending:
        """Submits a record as soon as there is room for it."""
        self._summary.items += 1
        if isinstance(made, LineFault):
            return made
        if len(made.tokens) > self._limits.request_tokens:
            message = f"{len(made.tokens)} tokens; a line may have {self._limits.request_tokens}"
            return _fault(made.line, "too_many_tokens", message)
        sentences = [made.tokens[start:end] for start, end in made.sentences]
        self._summary.sentences += len(sentences)
        self._summary.tokens += len(made.tokens)
        while True:
            try:
                job = self._model.batcher.submit(sentences, share=QUEUE_SHARE)
            except Refused:
                await self._model.batcher.room()
            else:
                self._jobs.add(job)
                return Submitted(made, job)

    async def _write(self, send: Send, pending: "asyncio.Queue[Pending | None]") -> None:
        """Sends the results as they come; it waits where the client takes none."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._written(pending):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _written(self, pending: "asyncio.Queue[Pending | None]") -> AsyncIterator[bytes]:
        """The results in order; those that are there together come together."""
        part: list[str] = []
        while (line := await pending.get()) is not None:
            if part and isinstance(line, Submitted) and not line.job.answers.done():
                yield "".join(part).encode()
                part = []
            part.append(await self._result(line))
            if pending.empty():
                yield "".join(part).encode()
                part = []
        if part:
            yield "".join(part).encode()

    async def _result(self, line: Pending) -> str:
        if isinstance(line, LineFault):
            return _write_fault(line)
        number = line.record.line
        try:
            answers = await line.job.answers
        except Exception as error:
            log.error("line %d of a stream failed with %s", number, type(error).__name__)
            return _write_fault(_fault(number, "internal_error", "the model failed on this line"))
        finally:
            self._jobs.discard(line.job)
        return write_line(self._model.manifest.task, line.record, answers)


async def split(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[list[Line | LineFault]]:
    """The lines that each chunk completes, counted from 1; one of more than `limit` bytes is a fault."""
    number = 0
    buffer = bytearray()
    skipping = False  # the rest of a line that is too long

    def read(content: bytes) -> Line | LineFault:
        nonlocal number
        number += 1
        content = content.removesuffix(b"\r")
        if len(content) > limit:
            return _fault(number, "line_too_long", f"the line is too long; expected at most {limit} bytes")
        try:
            text = content.decode()
            return Line(number, text.removeprefix("\ufeff") if number == 1 else text)
        except UnicodeDecodeError as error:
            return _fault(number, "invalid_encoding", f"byte {error.start + 1} of the line is not UTF-8")

    async for chunk in chunks:
        lines: list[Line | LineFault] = []
        searched = len(buffer)
        buffer += chunk
        begin = 0
        while (end := buffer.find(b"\n", max(begin, searched))) >= 0:
            if skipping:
                skipping = False
            else:
                lines.append(read(bytes(buffer[begin:end])))
            begin = end + 1
        del buffer[:begin]
        if not skipping and len(buffer) > limit + 1:  # the last may be CR
            lines.append(read(bytes(buffer)))
            skipping = True
        if skipping:
            buffer.clear()
        if lines:
            yield lines
    if buffer:
        yield [read(bytes(buffer))]


def _records(lines: Sequence[Line | LineFault], reading: ReaderSettings) -> list[Record | LineFault]:
    made: list[Record | LineFault] = []
    for line in lines:
        if isinstance(line, LineFault):
            made.append(line)
            continue
        try:
            made.append(json_record(line, reading))
        except RecordError as error:
            # The option is that of `python -m structural_kd annotate`.
            message = str(error).removesuffix(" (--sentence-tokens)")
            made.append(_fault(line.number, "invalid_record", message))
    return made


def _fault(line: int, code: str, message: str) -> LineFault:
    """A line that has no result, and why; the message repeats nothing of it."""
    return LineFault(line=line, code=code, message=message)


def _write_fault(fault: LineFault) -> str:
    return StreamFault(error=fault).model_dump_json() + "\n"
