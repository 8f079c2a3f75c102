"""Word vectors of a corpus from a frozen encoder: computed once, kept on disk, memory-mapped."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from structural_kd.files import whole
from structural_kd.wordpieces import count_pieces
from train.models.encoders import LAST_FOUR_LAYERS, Encoder, encode
from train.offline import cache_folder


@dataclass(frozen=True)
class FeatureStore:
    """Word vectors of a corpus on disk, memory-mapped: features [T, D] float16, offsets [S + 1]."""

    path: Path
    features: NDArray[np.float16]
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> "FeatureStore":
        features = np.load(path / "features.npy", mmap_mode="r", allow_pickle=False)
        offsets = np.load(path / "offsets.npy", allow_pickle=False)
        rows = len(features)
        if rows != offsets[-1]:
            raise ValueError(f"{path}: {rows} rows, but offsets up to {offsets[-1]}; delete the folder")
        return cls(path, features, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, sentence: int) -> NDArray[np.float16]:
        """Word vectors [n, D] of a sentence, by its place in the corpus."""
        return self.features[self.offsets[sentence] : self.offsets[sentence + 1]]


def frozen_features(
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    folder: Path | None = None,
    *,
    layers: Sequence[int] = LAST_FOUR_LAYERS,
    batch_pieces: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> FeatureStore:
    """Word vectors (see `encode`) of a corpus, computed once and kept on disk.

    folder: where; None is the folder features in `cache_folder()`.
    The key is the encoder, the layers, the precision and all words, so that nothing stale is ever read.
    `bfloat16` computes with autocast: about twice as fast where the processor has AMX or AVX-512 BF16.
    Sentences go longest first, in batches of about `batch_pieces` pieces, padding included; None is 512
    on a CPU, where small batches stay in its caches (a third faster than 4,096; 2,048 in bfloat16), and
    16,384 elsewhere.
    Raises FloatingPointError for a vector beyond float16; nothing is kept then.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, found {precision!r}")
    if batch_pieces is None:
        on_cpu = 512 if precision == "float32" else 2048
        batch_pieces = on_cpu if encoder.device.type == "cpu" else 16_384
    folder = cache_folder() / "features" if folder is None else folder
    target = folder / _key(encoder, sentences, layers, precision)
    if target.is_dir():
        return FeatureStore.open(target)
    autocast = torch.autocast(encoder.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    try:
        with whole(target) as part, autocast:
            part.mkdir()
            _write(encoder, sentences, part, layers, batch_pieces)
    except OSError:
        if not target.is_dir():  # else another process has written the same features meanwhile
            raise
    return FeatureStore.open(target)


def _key(encoder: Encoder, sentences: Sequence[Sequence[str]], layers: Sequence[int], precision: str) -> str:
    key = hashlib.sha256(json.dumps([1, encoder.digest, list(layers), precision]).encode("ascii"))
    for words in sentences:
        key.update(json.dumps(list(words)).encode("ascii"))
    return key.hexdigest()


def _write(
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    folder: Path,
    layers: Sequence[int],
    batch_pieces: int,
) -> None:
    offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)  # [S + 1]
    np.save(folder / "offsets.npy", offsets)
    shape = (int(offsets[-1]), encoder.hidden_size)
    if not shape[0]:
        np.save(folder / "features.npy", np.zeros(shape, np.float16))
        return
    features: Any = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, shape)
    counts = count_pieces(encoder.tokenizer, sentences)
    with tqdm(total=sum(counts), desc=encoder.name, unit=" pieces", unit_scale=True) as bar:
        for batch in _batches(counts, encoder.max_pieces, batch_pieces):
            encoded = encode(encoder, [sentences[place] for place in batch], layers=layers)
            for sentence, vectors in zip(batch, encoded, strict=True):
                with np.errstate(over="ignore"):
                    rows = vectors.cpu().numpy().astype(np.float16)  # [n, D]
                if not np.isfinite(rows).all():
                    raise FloatingPointError(f"{encoder.name}: sentence {sentence} has values beyond float16")
                features[offsets[sentence] : offsets[sentence + 1]] = rows
            bar.update(sum(counts[place] for place in batch))
    features.flush()


def _batches(counts: Sequence[int], max_pieces: int, batch_pieces: int) -> Iterator[list[int]]:
    """The numbers of sentences, longest first, in batches of about so many pieces, padding included."""
    batch: list[int] = []
    width = windows = 0
    for place in sorted(range(len(counts)), key=lambda place: -counts[place]):
        needed = -(-counts[place] // max_pieces)
        if batch and (windows + needed) * width > batch_pieces:
            yield batch
            batch, windows = [], 0
        if not batch:
            width = min(counts[place], max_pieces)
        batch.append(place)
        windows += needed
    if batch:
        yield batch
