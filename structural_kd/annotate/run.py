"""One run: what is read, annotated, written, counted, reported and shown."""

import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from tqdm import tqdm

from structural_kd.annotate.lines import Lines
from structural_kd.annotate.partial import Progress
from structural_kd.annotate.readers import Reading, Records
from structural_kd.annotate.records import BadRecord
from structural_kd.annotate.stream import Predictor, annotate, windows
from structural_kd.annotate.writers import Annotated, Writer


class Output(Protocol):
    """Where the results go."""

    def write(self, data: bytes, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Stdout:
    """Results to a stream; what is written is out of reach and cannot be gone on with."""

    stream: BinaryIO

    def write(self, data: bytes, progress: Progress) -> None:
        self.stream.write(data)
        self.stream.flush()


@dataclass(frozen=True)
class Run:
    """All that a run is made of; `name` is the input's, for reports."""

    name: str
    stream: BinaryIO
    read: Callable[[Lines, Reading], Records]
    reading: Reading
    predictors: Mapping[str, Predictor]
    writer: Writer
    window_tokens: int
    max_line_bytes: int
    show_progress: bool

    def __call__(self, output: Output, progress: Progress) -> None:
        """Annotates what comes after `progress`, and counts in it.

        Raises:
            OtherInputError: the input does not begin with what `progress` says.
        """
        lines = Lines(self.stream, max_bytes=self.max_line_bytes)
        sentences_before = progress.sentences
        with self._bar() as bar:
            lines.skip(progress.input_bytes, progress.input_lines, progress.input_sha256, bar.update)
            began = time.monotonic()
            for window in windows(self.read(lines, self.reading), lines, self.window_tokens):
                items = annotate(window, self.predictors)
                for item in items:
                    if isinstance(item, BadRecord):
                        tqdm.write(f"{self.name}:{item.line}: {item.message}", file=sys.stderr)
                        progress.bad += 1
                    else:
                        progress.sentences += len(item.record.sentences)
                progress.records += len(items)
                read = lines.bytes - progress.input_bytes
                progress.input_bytes, progress.input_lines = lines.bytes, lines.count
                progress.input_sha256 = lines.sha256
                output.write(_encoded(items, self.writer), progress)
                rate = (progress.sentences - sentences_before) / (time.monotonic() - began or 1)
                bar.set_postfix_str(f"{rate:,.0f} sentences/s", refresh=False)
                bar.update(read)

    def _bar(self) -> tqdm:
        return tqdm(
            total=bytes_left(self.stream),
            desc=self.name,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,
            disable=not self.show_progress,
        )


def bytes_left(stream: BinaryIO) -> int | None:
    """What is left to read of a file, also of one that was redirected to stdin; None for a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size - stream.tell() if stat.S_ISREG(status.st_mode) else None


def _encoded(items: list[Annotated | BadRecord], writer: Writer) -> bytes:
    return "".join(map(writer, items)).encode()
