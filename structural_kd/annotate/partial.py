"""An output file that is there whole or not at all, and that an interrupted run leaves ready to go on with.

While a run lasts, its output is in ``FILE.part``, and ``FILE.part.json`` says from time to time how much of
the input is in how much of the output. A run that goes on cuts off what came after that.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

SECONDS_BETWEEN_CHECKPOINTS = 2.0
CHUNK_BYTES = 1 << 20


class ResumeError(ValueError):
    """The output cannot be written or gone on with; the message says what to do."""


@dataclass
class Progress:
    """How far a run is, in whole records.

    `input_bytes` and `input_lines` of the input, whose SHA-256 is `input_sha256`, are annotated.
    """

    input_bytes: int = 0
    input_lines: int = 0
    input_sha256: str = hashlib.sha256().hexdigest()
    records: int = 0
    sentences: int = 0
    bad: int = 0


@dataclass(frozen=True)
class _Checkpoint:
    settings: dict[str, Any]
    output_bytes: int = 0
    output_sha256: str = hashlib.sha256().hexdigest()
    progress: Progress = field(default_factory=Progress)


class PartialFile:
    """The output of a run; `progress` is where it begins.

    Args:
        path: what the file is called once it is complete.
        settings: whatever the output depends on but the input; a run goes on with the same ones only.
        resume: go on with what an interrupted run left, or begin where there is nothing.

    Raises:
        ResumeError: there is an interrupted run and `resume` is not asked for, or it cannot be gone on with.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(os.path.realpath(path))
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._sidecar = self.path.with_name(f"{self.path.name}.part.json")
        self._settings = dict(settings)
        if self.path.exists() and not self.path.is_file():
            raise ResumeError(f"{path}: not a file; write to it with > instead of --output")
        if self._part.exists() and not resume:
            raise ResumeError(
                f"{self._part}: left by an interrupted run; go on with it with --resume, or delete it"
            )
        if resume and self.path.exists() and not self._part.exists():
            raise ResumeError(
                f"{path}: complete, there is no {self._part.name}; leave out --resume to annotate again"
            )
        self._file: BinaryIO = self._part.open("r+b" if self._part.exists() else "xb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            checkpoint = self._found() if resume else _Checkpoint(self._settings)
            self._digest = self._cut(checkpoint)
        except BlockingIOError:
            self._file.close()
            raise ResumeError(f"{self._part}: another run is writing it; wait for it or stop it") from None
        except BaseException:
            self._file.close()
            raise
        self.progress = checkpoint.progress
        self._save(self.progress)

    def write(self, data: bytes, progress: Progress) -> None:
        """Adds the output of some records; `progress` is where the run is after them."""
        self._file.write(data)
        self._digest.update(data)
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_CHECKPOINTS:
            self._save(progress)

    def finish(self) -> None:
        """Gives the complete file its name."""
        self._flush()
        os.replace(self._part, self.path)
        self._file.close()
        self._sidecar.unlink()

    def close(self) -> None:
        """Leaves the file as an interrupted run does."""
        self._file.close()

    def _found(self) -> _Checkpoint:
        """Where the interrupted run was."""
        size = self._part.stat().st_size
        again = f"delete {self._part} to start again"
        try:
            fields = json.loads(self._sidecar.read_bytes())
            checkpoint = _Checkpoint(**{**fields, "progress": Progress(**fields["progress"])})
        except FileNotFoundError:
            if size == 0:
                return _Checkpoint(self._settings)
            raise ResumeError(f"{self._sidecar}: missing, {self._part.name} needs it; {again}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ResumeError(f"{self._sidecar}: not what a run writes: {error}; {again}") from None
        for name in sorted({*checkpoint.settings, *self._settings}):
            before, now = checkpoint.settings.get(name), self._settings.get(name)
            if before != now:
                raise ResumeError(
                    f"{self._sidecar}: the interrupted run had {name} {before!r}, this one has {now!r}; "
                    f"run it with the same, or {again}"
                )
        if size < checkpoint.output_bytes:
            raise ResumeError(
                f"{self._part}: {size:,} bytes, its run had written {checkpoint.output_bytes:,}; {again}"
            )
        return checkpoint

    def _cut(self, checkpoint: _Checkpoint) -> Any:
        """Cuts off what came after the checkpoint; returns the hash of what stays."""
        digest = hashlib.sha256()
        left = checkpoint.output_bytes
        while left and (chunk := self._file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        if digest.hexdigest() != checkpoint.output_sha256:
            raise ResumeError(
                f"{self._part}: changed since its run was interrupted; delete {self._part} to start again"
            )
        self._file.truncate(checkpoint.output_bytes)
        self._file.seek(checkpoint.output_bytes)
        return digest

    def _save(self, progress: Progress) -> None:
        self._flush()
        checkpoint = _Checkpoint(self._settings, self._file.tell(), self._digest.hexdigest(), progress)
        temporary = self._sidecar.with_name(f"{self._sidecar.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(checkpoint), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._sidecar)
        self._saved = time.monotonic()

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
