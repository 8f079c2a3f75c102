"""The teacher of the paper's size: its graph, its number of parameters, the mark that it is random."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer, models

import structural_kd
from export.paper_encoder import (
    LONGEST_PIECE,
    PaperEncoder,
    Shape,
    paper_encoder_graph,
    piece_characters,
)
from export.paper_shape import main, paper_tokenizer, pieces_a_word, write_paper_shape
from tests.export.tiny_models import WORDS, card, model, run_folder, sentences
from train.models.card import save_trained

SMALL = Shape(
    vocabulary=120,
    hidden=8,
    layers=3,
    heads=2,
    feed_forward=16,
    positions=40,
    characters=12,
    character_dim=5,
    language_model=6,
    vector_dim=4,
    bilstm=7,
    parameters=12_000,
)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b", "cd", "##efg", "x", "[", "y" * 30]


def tokenizer() -> Tokenizer:
    return Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))


def run_with_teachers(folder: Path) -> Path:
    run = run_folder(folder, {"ner": "crf", "parse": "biaffine"})
    for task, kind in (("ner", "crf"), ("parse", "biaffine")):
        described = card(kind, role="teacher")
        save_trained(
            run / task / "teacher",
            model(described),
            described,
            objective="none",
            seed=1,
            scores={"test": {"f1": 90.0}},
            corpus={"name": "tiny", "digest": "0" * 64},
        )
    return run


def test_pieces_that_begin_words_begin_with_a_space_and_special_ones_have_no_characters():
    table, counts = piece_characters(tokenizer(), SMALL)
    assert counts.tolist()[: len(PIECES)] == [0, 0, 0, 0, 2, 1, 3, 3, 2, 2, LONGEST_PIECE]
    space = table[4, 0]
    assert (table[[6, 8, 9, 10], 0] == space).all()
    assert table[5, 0] not in (0, space)
    assert table.max() < SMALL.characters


def test_characters_beyond_the_alphabet_are_one_unknown_character():
    narrow = replace(SMALL, characters=4)
    table, counts = piece_characters(tokenizer(), narrow)
    assert set(np.unique(table)) == {0, 1, 2, 3}
    assert counts.tolist() == piece_characters(tokenizer(), SMALL)[1].tolist()


def test_the_graph_reads_what_torch_reads_piece_by_piece_with_and_without_padding():
    shape = replace(SMALL, vocabulary=len(PIECES))
    torch.manual_seed(1)
    encoder = PaperEncoder(shape).eval()
    graph = paper_encoder_graph(encoder, (-1,), tokenizer(), shape)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    table, counts = piece_characters(tokenizer(), shape)
    rng = np.random.default_rng(3)
    compared = 0
    for _ in range(20):
        lengths = rng.integers(1, 12, size=rng.integers(1, 6))
        ids = np.zeros((len(lengths), lengths.max()), np.int64)
        mask = np.zeros_like(ids)
        for row, length in enumerate(lengths):
            ids[row, :length] = rng.integers(1, len(PIECES), length)
            mask[row, :length] = 1
        got = session.run(None, {"ids": ids, "mask": mask})[0]  # [W, p, E]
        assert got.shape == (*ids.shape, shape.features)
        for row, length in enumerate(lengths):
            own = torch.tensor(ids[row : row + 1, :length])
            with torch.no_grad():
                hidden = encoder.bert(own, output_hidden_states=True).hidden_states[-1][0]
            np.testing.assert_allclose(got[row, :length, :8], hidden, atol=2e-5)
            ends = np.cumsum(counts[ids[row, :length]])
            strung = np.concatenate([table[piece, : counts[piece]] for piece in ids[row, :length]])
            if not len(strung):
                continue
            characters = torch.tensor(strung[None])
            with torch.no_grad():
                forward = encoder.forward_model(encoder.forward_embedding(characters))[0][0]
                turned = encoder.backward_embedding(characters.flip(1))
                backward = encoder.backward_model(turned)[0][0].flip(0)
            for place in np.flatnonzero(counts[ids[row, :length]]):
                begin = ends[place] - counts[ids[row, place]]
                np.testing.assert_allclose(got[row, place, 8:14], forward[ends[place] - 1], atol=1e-5)
                np.testing.assert_allclose(got[row, place, 14:], backward[begin], atol=1e-5)
                compared += 1
    assert compared > 100


def test_the_default_shape_is_the_papers_and_so_are_its_parts():
    shape = Shape()
    assert (shape.vocabulary, shape.hidden, shape.layers, shape.language_model) == (119_547, 768, 12, 2_048)
    with torch.device("meta"):
        encoder = PaperEncoder(shape)
    sizes = {name: sum(w.numel() for w in part.parameters()) for name, part in encoder.named_children()}
    assert sizes["bert"] == pytest.approx(177.3e6, rel=0.002)
    assert sum(sizes.values()) - sizes["bert"] == pytest.approx(35.3e6, rel=0.005)


def test_the_command_writes_bundles_of_the_papers_size_that_are_marked_as_random(
    tmp_path, capsys, monkeypatch
):
    run = run_with_teachers(tmp_path / "run")
    monkeypatch.setattr("export.paper_shape.Shape", lambda: SMALL)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "random weights, no accuracy" in printed.err
    assert printed.out.count("0.01 M parameters") == printed.out.count("pieces a word") == 2
    for task in ("ner", "parse"):
        predictor = structural_kd.load(tmp_path / "out" / task)
        texts = [*sentences(30), ["nowhere-seen", "[", "Mara"]]
        assert len(predictor.predict(texts)) == len(texts)
        manifest = predictor.manifest
        assert manifest.parameters == pytest.approx(SMALL.parameters, abs=SMALL.vector_dim)
        assert manifest.scores == {}
        assert manifest.provenance.objective == manifest.provenance.recipe == "random weights"
        assert (manifest.name, manifest.role, manifest.corpus) == (f"paper-shape-{task}", "teacher", None)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = run_with_teachers(tmp_path / "run")
    first, again = (write_paper_shape(run, "ner", tmp_path / name, SMALL).files for name in ("a", "b"))
    assert first == again


def test_a_size_that_is_too_small_for_its_parts_is_refused(tmp_path):
    run = run_with_teachers(tmp_path / "run")
    with pytest.raises(ValueError, match="parameters more than the 100 of the paper"):
        write_paper_shape(run, "ner", tmp_path / "out", replace(SMALL, parameters=100))
    assert not (tmp_path / "out").exists()


def test_the_vocabulary_is_filled_up_and_cuts_the_language_at_hand():
    cut = paper_tokenizer([" ".join(words) for words in sentences(50)], SMALL)
    assert cut.get_vocab_size() == SMALL.vocabulary
    assert cut.encode(WORDS[0]).tokens[0] == "[CLS]"
    assert 1 <= pieces_a_word(cut, [" ".join(WORDS[:10])]) < 4


def test_a_folder_without_a_run_or_without_a_teacher_is_an_error_that_names_the_remedy(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "python -m train" in capsys.readouterr().err
    run_folder(tmp_path / "run", {"ner": "crf"})
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "teacher" in capsys.readouterr().err
