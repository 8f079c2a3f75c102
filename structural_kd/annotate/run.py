"""One run: what is read, annotated, counted, reported and shown."""

import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from tqdm import tqdm

from structural_kd.annotate.lines import Lines
from structural_kd.annotate.readers import Records
from structural_kd.annotate.records import BadRecord
from structural_kd.annotate.shards import Progress
from structural_kd.annotate.stream import SentencePredictor, annotate, windows
from structural_kd.annotate.writers import Writer


def run(
    lines: Lines,
    records: Records,
    progress: Progress,
    *,
    name: str,
    predictors: Mapping[str, SentencePredictor],
    write: Writer,
    window_tokens: int,
    bar: tqdm,
) -> Iterator[bytes]:
    """The results of the `records` of `lines` that come after `progress`, which counts them, by window.

    Bad records are reported on stderr; `name` is the input's.

    Raises:
        OtherInputError: the lines do not begin with what `progress` says.
    """
    lines.skip(progress.input_bytes, progress.input_lines, progress.input_sha256, bar.update)
    sentences = 0
    began = time.monotonic()
    for window in windows(records, lines, window_tokens):
        items = annotate(window, predictors)
        for item in items:
            if isinstance(item, BadRecord):
                tqdm.write(f"{name}:{item.line}: {item.message}", file=sys.stderr)
                progress.bad += 1
            else:
                sentences += len(item.record.sentences)
        progress.records += len(items)
        bar.set_postfix_str(f"{sentences / (time.monotonic() - began or 1):,.0f} sentences/s", refresh=False)
        bar.update(lines.bytes - progress.input_bytes)
        progress.input_bytes, progress.input_lines = lines.bytes, lines.count
        progress.input_sha256 = lines.sha256
        yield "".join(map(write, items)).encode()


def progress_bar(stream: BinaryIO, name: str, *, show: bool) -> tqdm:
    """Of the bytes that are left to read of a file, also of one that was redirected to stdin."""
    try:
        status = os.fstat(stream.fileno())
        total = status.st_size - stream.tell() if stat.S_ISREG(status.st_mode) else None
    except OSError:  # no file at all
        total = None
    return tqdm(
        total=total,
        desc=name,
        unit="B",
        unit_scale=True,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        disable=not show,
    )
