"""The target store: the teacher's targets of each sentence, on disk.

The teacher runs once. Its sufficient statistics go to shards of ragged arrays, which students read through
memory maps, without the teacher in memory. A shard is a folder that appears whole or not at all, so that a
killed run goes on where it was; the header has whose targets these are, and a store that belongs to
another teacher, label set or corpus is refused.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from structural_kd.files import whole, write_whole

Content = Literal["marginals", "topk", "topwk", "potentials"]
"""What a store holds: the teacher's marginals of the student's parts; those of its k best structures, each
counting the same or by its probability; the teacher's scores of the parts."""

FORMAT = 2
SHARD_SENTENCES = 1024
TargetRow = dict[str, np.ndarray]
"""Named arrays of one sentence; arrays of one name differ between sentences only in their first dimension."""


class TargetStoreError(RuntimeError):
    """A store that does not belong to this run, or is damaged."""


@dataclass(frozen=True)
class TargetHeader:
    """Whose targets a store holds."""

    task: str
    family: str  # the student family whose parts they are
    teacher: str  # SHA-256 of the teacher's weights
    corpus: str  # SHA-256 of the sentences, in order
    labels: tuple[str, ...]
    temperature: float
    sentences: int
    content: Content = "marginals"
    temper: str = "potentials"  # or marginals: what the temperature divides
    k: int | None = None  # how many best structures, where the content is of these
    format: int = FORMAT


class TargetStore:
    """Target rows by the place of a sentence among those that students learn from.

    Args:
        folder: where the store is, or will be.
        header: what it has to be.

    Raises:
        TargetStoreError: the folder holds other targets; the message has the field that differs.
    """

    def __init__(self, folder: Path, header: TargetHeader) -> None:
        self.folder = folder
        self.header = header
        self._shards: dict[int, dict[str, np.ndarray]] = {}
        header_file = folder / "header.json"
        if header_file.exists():
            _check_header(header_file, header)
        else:
            write_whole(header_file, json.dumps(asdict(header), ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return self.header.sentences

    def missing(self) -> Iterator[tuple[int, range]]:
        """The shards still to be written, and the numbers of their sentences."""
        for shard, first in enumerate(range(0, len(self), SHARD_SENTENCES)):
            if not self._path(shard).exists():
                yield shard, range(first, min(first + SHARD_SENTENCES, len(self)))

    def write(self, shard: int, rows: Sequence[TargetRow]) -> None:
        """Write one shard whole."""
        names = {frozenset(row) for row in rows}
        if len(names) > 1:
            raise TargetStoreError(f"rows of one shard hold different things: {sorted(map(sorted, names))}")
        with whole(self._path(shard)) as part:
            part.mkdir()
            for name in rows[0]:
                column = [np.asarray(row[name]) for row in rows]
                np.save(part / f"{name}.npy", np.concatenate(column), allow_pickle=False)
                ends = np.cumsum([0, *(len(values) for values in column)], dtype=np.int64)
                np.save(part / f"{name}.ends.npy", ends, allow_pickle=False)

    def __getitem__(self, sentence: int) -> TargetRow:
        if not 0 <= sentence < len(self):
            raise IndexError(f"the store has sentences 0..{len(self) - 1}, not {sentence}")
        shard, row = divmod(sentence, SHARD_SENTENCES)
        arrays = self._shards.get(shard)
        if arrays is None:
            arrays = self._shards[shard] = self._open(shard)
        return {
            name: flat[arrays[f"{name}.ends"][row] : arrays[f"{name}.ends"][row + 1]]
            for name, flat in arrays.items()
            if not name.endswith(".ends")
        }

    def _open(self, shard: int) -> dict[str, np.ndarray]:
        path = self._path(shard)
        if not path.exists():
            raise TargetStoreError(f"{path} is missing: the teacher has not finished these targets")
        try:
            return {
                file.name.removesuffix(".npy"): np.load(file, mmap_mode="r", allow_pickle=False)
                for file in sorted(path.glob("*.npy"))
            }
        except (ValueError, OSError) as error:
            raise TargetStoreError(
                f"{path} is damaged ({error}); delete the folder to have it redone"
            ) from None

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}"


def _check_header(file: Path, wanted: TargetHeader) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        found["labels"] = tuple(found["labels"])
    except (ValueError, KeyError, TypeError) as error:
        raise TargetStoreError(f"{file} is damaged ({error}); delete the folder to have it redone") from None
    for name, value in asdict(wanted).items():
        if found.get(name) != value:
            raise TargetStoreError(
                f"{file}: the store's {name} is {_short(found.get(name))}, this run's is {_short(value)}; "
                f"delete {file.parent} to have the targets made again"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
