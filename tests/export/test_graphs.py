"""Graphs answer as torch does: every kind, one and two layers, any lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bundle.session import Session, open_session
from export.graphs import GRAPHS
from export.layers import weights
from export.parser_graph import relations_graph
from export.write import write_graph
from tests.export.tiny_models import KINDS, card, model
from train.structs import HeadSelection, LinearChain, TokenSoftmax

SIZE = 10


def opened(tmp_path: Path, graph: onnx.ModelProto) -> Session:
    write_graph(tmp_path / "graph.onnx", graph)
    return open_session(tmp_path / "graph.onnx")


def batch(lengths: list[int], seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((len(lengths), max(lengths), SIZE), np.float32), np.array(lengths)


def states(built: Any, words: Any, lengths: Any) -> torch.Tensor:
    with torch.no_grad():
        return built.representation.context(torch.from_numpy(words), torch.from_numpy(lengths))


def chain_of(built: Any, words: Any, lengths: Any) -> LinearChain:
    c = built.constraints
    with torch.no_grad():
        scores = built.emissions(states(built, words, lengths)).double()
        return LinearChain(
            scores,
            (built.transitions + c.transitions).double(),
            (built.start + c.start).double(),
            (built.end + c.end).double(),
            torch.from_numpy(lengths),
        )


@pytest.mark.parametrize("lengths", [[1], [5], [1, 1], [9, 1, 4, 2, 9], [60, 3]])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_crf_graph_gives_the_viterbi_path_and_its_exact_posterior(tmp_path, layers, lengths):
    built = model(card("crf", layers=layers))
    words, sizes = batch(lengths)
    out = opened(tmp_path, GRAPHS["crf"]["model.onnx"](built)).run(words=words, lengths=sizes)
    chain = chain_of(built, words, sizes)
    path = chain.argmax()
    tokens, pairs = chain.marginals()
    np.testing.assert_array_equal(out["labels"], path)
    for i, n in enumerate(lengths):
        y = path[i, :n]
        np.testing.assert_allclose(out["token_log_probs"][i, :n], tokens[i, range(n), y].log(), atol=1e-4)
        expected = pairs[i, range(n - 1), y[:-1], y[1:]].log()
        np.testing.assert_allclose(out["pair_log_probs"][i, 1:n], expected, atol=1e-4)
        assert out["pair_log_probs"][i, 0] == 0
        assert not any(out[name][i, n:].any() for name in out)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_softmax_graph_gives_the_best_valid_sequence_and_the_softmaxes_own_posterior(tmp_path, layers):
    built = model(card("softmax", layers=layers))
    words, sizes = batch([7, 1, 3])
    out = opened(tmp_path, GRAPHS["softmax"]["model.onnx"](built)).run(words=words, lengths=sizes)
    with torch.no_grad():
        scores = TokenSoftmax(built.emissions(states(built, words, sizes)), torch.from_numpy(sizes))
    np.testing.assert_array_equal(out["labels"], built.decode(scores))
    for i, n in enumerate(sizes):
        chosen = scores.scores.log_softmax(-1)[i, range(n), out["labels"][i, :n]].numpy()
        np.testing.assert_allclose(out["token_log_probs"][i, :n], chosen, atol=1e-4)
        np.testing.assert_allclose(out["pair_log_probs"][i, 1:n], chosen[1:] + chosen[:-1], atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("lengths", [[1], [1, 6, 3], [20, 2]])
def test_a_biaffine_graph_gives_the_greedy_heads_and_all_that_repairs_need(tmp_path, lengths, layers):
    built = model(card("biaffine", layers=layers))
    words, sizes = batch(lengths)
    out = opened(tmp_path, GRAPHS["biaffine"]["model.onnx"](built)).run(words=words, lengths=sizes)
    given = _given(built, words, sizes)
    arcs, relations = built.decode(given)
    log_probs = given.scores.flatten(2).log_softmax(-1).view_as(given.scores)
    for i, n in enumerate(lengths):
        heads = arcs[i, :n].argmax(-1)
        np.testing.assert_array_equal(out["heads"][i, :n], heads)
        np.testing.assert_array_equal(out["relations"][i, :n], relations[i, range(n), heads])
        chosen = log_probs[i, range(n), heads, relations[i, range(n), heads]]
        np.testing.assert_allclose(out["log_probs"][i, :n], chosen, atol=1e-4)
        inside = given.allowed[i, :n]
        np.testing.assert_allclose(
            out["arc_log_probs"][i, :n][inside.numpy()], arcs[i, :n][inside], atol=1e-4
        )
        assert not out["heads"][i, n:].any()
        assert not out["log_probs"][i, n:].any()


def test_the_relations_graph_gives_the_best_relation_of_any_arc(tmp_path):
    built = model(card("biaffine"))
    words, sizes = batch([5])
    out = opened(tmp_path, GRAPHS["biaffine"]["model.onnx"](built)).run(words=words, lengths=sizes)
    given = _given(built, words, sizes)
    token, head = given.allowed[0].nonzero().T.numpy()
    (tmp_path / "second").mkdir()
    best = opened(tmp_path / "second", relations_graph(built)).run(
        dependents=out["dependents"][0, token], governors=out["governors"][0, head]
    )
    np.testing.assert_array_equal(best["relations"], given.scores.argmax(-1)[0, token, head])
    expected = given.scores.softmax(-1).amax(-1).log()[0, token, head]
    np.testing.assert_allclose(best["relation_log_probs"], expected, atol=1e-4)


@pytest.mark.parametrize("lengths", [[1], [1, 6, 3], [20, 2]])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_labeller_graph_never_points_out_of_a_sentence(tmp_path, lengths, layers):
    built = model(card("labeller", layers=layers))
    words, sizes = batch(lengths)
    out = opened(tmp_path, GRAPHS["labeller"]["model.onnx"](built)).run(words=words, lengths=sizes)
    given = _given(built, words, sizes)
    arcs, relations = built.decode(given)
    for i, n in enumerate(lengths):
        heads = arcs[i, :n].argmax(-1)
        np.testing.assert_array_equal(out["heads"][i, :n], heads)
        np.testing.assert_array_equal(out["relations"][i, :n], relations[i, range(n), heads])
        np.testing.assert_allclose(out["log_probs"][i, :n], arcs[i, :n].amax(-1), atol=1e-4)
        assert (out["heads"][i] <= n).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_answered_alone_as_in_a_batch(tmp_path, kind):
    graph = opened(tmp_path, GRAPHS[kind]["model.onnx"](model(card(kind))))
    words, sizes = batch([8, 1, 30, 3])
    together = graph.run(words=words, lengths=sizes)
    for i, n in enumerate(sizes):
        alone = graph.run(words=words[i : i + 1, :n], lengths=sizes[i : i + 1])
        for name in ("labels", "heads", "relations"):
            if name in alone:
                np.testing.assert_array_equal(alone[name][0], together[name][i, :n])
        for name in ("token_log_probs", "pair_log_probs", "log_probs"):
            if name in alone:
                np.testing.assert_allclose(alone[name][0], together[name][i, :n], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharpness", [0.0, 1e4])
def test_no_weights_make_an_output_other_than_a_log_probability(tmp_path, kind, sharpness):
    words, sizes = batch([20, 1, 7])
    graph = opened(tmp_path, GRAPHS[kind]["model.onnx"](model(card(kind), sharpness=sharpness)))
    for name, values in graph.run(words=words * 100, lengths=sizes).items():
        assert np.isfinite(values).all(), name
        if name.endswith("log_probs"):
            assert (values <= 1e-6).all(), name


def test_lstm_weights_are_initialisers_which_quantisation_looks_for():
    built = model(card("crf", layers=2))
    graph = GRAPHS["crf"]["model.onnx"](built).graph
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    lstms = [node for node in graph.node if node.op_type == "LSTM"]
    assert len(lstms) == 2
    assert all(name in initialisers for node in lstms for name in node.input[1:4])
    recurrent = onnx.numpy_helper.to_array(initialisers[lstms[0].input[2]])
    ours = weights(built.representation.context.lstm.weight_hh_l0)
    np.testing.assert_array_equal(recurrent[0][:7], ours[:7])
    np.testing.assert_array_equal(recurrent[0][7:14], ours[21:])


def test_inputs_and_outputs_have_dynamic_batch_and_tokens():
    for kind in KINDS:
        graph = GRAPHS[kind]["model.onnx"](model(card(kind))).graph
        assert [value.name for value in graph.input] == ["words", "lengths"]
        words = graph.input[0].type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in words] == ["batch", "tokens", SIZE]


def _given(built: Any, words: Any, lengths: Any) -> HeadSelection:
    """The model's distribution over heads for features in place of words."""

    class Given(torch.nn.Module):
        def forward(self, _: Any) -> torch.Tensor:
            return states(context, words, lengths)

    from types import SimpleNamespace

    context = SimpleNamespace(representation=built.representation)
    built.representation = Given()
    try:
        with torch.no_grad():
            return built(SimpleNamespace(lengths=torch.from_numpy(lengths)))
    finally:
        built.representation = context.representation
