"""An output file that is there whole or not at all, and that an interrupted run leaves ready to go on with.

While a run lasts, its results lie in the folder ``FILE.parts``: shards, each written whole, and
``state.json``, which says how much of the input is in them. A killed run loses no more than one shard.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from structural_kd.files import write_whole

SHARD_BYTES, SHARD_SECONDS = 8 << 20, 30.0
"""A shard ends with the window that fills it or that is done this long after the shard was begun."""


class ResumeError(ValueError):
    """The output cannot be written or gone on with; the message says what to do."""


@dataclass
class Progress:
    """How far a run is: `input_bytes` and `input_lines` of the input, with this SHA-256, are annotated."""

    input_bytes: int = 0
    input_lines: int = 0
    input_sha256: str = hashlib.sha256().hexdigest()
    records: int = 0
    bad: int = 0


class Shards:
    """The output of a run; `progress` is where it is.

    Args:
        path: what the file is called once it is complete.
        settings: whatever the output depends on but the input; a run goes on with the same ones only.
        resume: go on with what an interrupted run left, or begin where there is nothing.

    Raises:
        ResumeError: there is an interrupted run and `resume` is not asked for, or it cannot be gone on with,
            or it is not interrupted at all.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._path = Path(os.path.realpath(path))
        self._folder = self._path.with_name(f"{self._path.name}.parts")
        self._state = self._folder / "state.json"
        self._settings = dict(settings)
        if self._path.exists() and not self._path.is_file():
            raise ResumeError(f"{path}: not a file; write to it with > instead of --output")
        if self._folder.exists() and not resume:
            raise ResumeError(
                f"{self._folder}: left by an interrupted run; go on with it with --resume, or delete it"
            )
        if resume and self._path.exists() and not self._folder.exists():
            raise ResumeError(
                f"{path}: complete, there is no {self._folder.name}; leave out --resume to annotate again"
            )
        self._folder.mkdir(exist_ok=True)
        self._lock = (self._folder / "lock").open("wb")  # held until the file is closed or the process ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ResumeError(f"{self._folder}: another run is writing it; wait for it or stop it") from None
        self._shards = self._bytes = 0  # finished ones, and what they hold
        self._results: list[bytes] = []  # of the unfinished one
        self._begun = time.monotonic()
        self.progress = self._found() if self._state.exists() else Progress()

    def write(self, results: bytes) -> None:
        """Adds results; `progress` is where the run is with them."""
        self._results.append(results)
        since = time.monotonic() - self._begun
        if sum(map(len, self._results)) >= SHARD_BYTES or since >= SHARD_SECONDS:
            self._end_shard()

    def finish(self) -> None:
        """Joins the shards and gives the complete file its name."""
        self._end_shard()
        joined = self._folder / "joined"  # not beside the file, where a killed run would leave it
        with joined.open("wb") as file:
            for number in range(self._shards):
                with self._shard(number).open("rb") as shard:
                    shutil.copyfileobj(shard, file)
        os.replace(joined, self._path)
        shutil.rmtree(self._folder)

    def close(self) -> None:
        """Leaves the finished shards to a run that goes on; without any there is nothing to leave."""
        if not self._shards:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    def _shard(self, number: int) -> Path:
        return self._folder / f"{number:05}"

    def _end_shard(self) -> None:
        results = b"".join(self._results)
        write_whole(self._shard(self._shards), results)
        self._results, self._begun = [], time.monotonic()
        self._shards += 1
        self._bytes += len(results)
        state = {"shards": self._shards, "bytes": self._bytes, "progress": asdict(self.progress)}
        write_whole(self._state, json.dumps({"settings": self._settings, **state}, indent=1) + "\n")

    def _found(self) -> Progress:
        """Where the interrupted run was, if it had the same settings and left its shards as they are."""
        again = f"delete {self._folder} to start again"
        try:
            state = json.loads(self._state.read_bytes())
            settings, progress = dict(state["settings"]), Progress(**state["progress"])
            self._shards, self._bytes = state["shards"], state["bytes"]
            size = sum(self._shard(number).stat().st_size for number in range(self._shards))
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            raise ResumeError(f"{self._state}: not what a run leaves: {error}; {again}") from None
        for name in sorted({*settings, *self._settings}):
            before, now = settings.get(name), self._settings.get(name)
            if before != now:
                raise ResumeError(
                    f"{self._state}: the interrupted run had {name} {before!r}, this one has {now!r}; "
                    f"run it with the same, or {again}"
                )
        if size != self._bytes:
            raise ResumeError(f"{self._folder}: changed since its run was interrupted; {again}")
        return progress
