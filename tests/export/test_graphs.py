"""Graphs answer as torch does: every kind, every context, any lengths."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.context import word_projection
from export.convolution import LARGEST
from export.model import GRAPHS
from export.parity import context_alone
from export.parser_graph import relations_graph
from export.products import PRODUCTS, WEIGHT_LEVELS
from export.quantisation import QuantisationError, check_quantised
from export.write import write_graph
from structural_kd.session import Session, open_session
from tests.export.tiny_models import CONTEXTS, KINDS, card, model
from train.models.batch import Batch
from train.structs import HeadSelection, LinearChain, TokenSoftmax

SIZE = 10
EVERY_CONTEXT = pytest.mark.parametrize("context", CONTEXTS)
PER_TOKEN = {"labels", "token_log_probs", "pair_log_probs", "heads", "relations", "log_probs"}

ROUNDING = {"fp32": 2e-6, "int8": 5e-3}
"""Of log-probabilities: a few units in the last place, which in int8 may round a state the other way."""


def opened(tmp_path: Path, graph: onnx.ModelProto) -> Session:
    write_graph(tmp_path / "graph.onnx", graph)
    return open_session(tmp_path / "graph.onnx")


def batch(lengths: list[int], seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((len(lengths), max(lengths), SIZE), np.float32), np.array(lengths)


def feeds(built: Any, words: Any, lengths: Any) -> dict[str, Any]:
    """The graph's inputs for features [B, n, SIZE] of words that are all distinct."""
    weight, bias = word_projection(built.representation)
    rows = words.reshape(-1, SIZE) @ weight + bias
    return {"rows": rows, "words": np.arange(len(rows)).reshape(words.shape[:2]), "lengths": lengths}


def graph_of(built: Any, kind: str, precision: str = "fp32") -> onnx.ModelProto:
    return GRAPHS[kind]["model.onnx"](built, PRODUCTS[precision])


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


def heads_of(built: Any, words: Any, lengths: Any) -> HeadSelection:
    """A parser's distribution over heads for features in place of words."""
    n = torch.from_numpy(lengths)
    batch = Batch(torch.zeros(words.shape[:2], dtype=torch.int64), n, (), torch.from_numpy(words))
    with context_alone(built), torch.no_grad():
        return built(batch)


@pytest.mark.parametrize("lengths", [[1], [5], [1, 1], [9, 1, 4, 2, 9], [60, 3]])
@EVERY_CONTEXT
def test_a_crf_graph_gives_the_viterbi_path_and_its_exact_posterior(tmp_path, context, lengths):
    built = model(card("crf", **CONTEXTS[context]))
    words, sizes = batch(lengths)
    out = opened(tmp_path, graph_of(built, "crf")).run(**feeds(built, words, sizes))
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


@EVERY_CONTEXT
def test_a_softmax_graph_gives_the_best_valid_sequence_and_the_softmaxes_own_posterior(tmp_path, context):
    built = model(card("softmax", **CONTEXTS[context]))
    words, sizes = batch([7, 1, 3])
    out = opened(tmp_path, graph_of(built, "softmax")).run(**feeds(built, words, sizes))
    with torch.no_grad():
        scores = TokenSoftmax(built.emissions(states(built, words, sizes)), torch.from_numpy(sizes))
    np.testing.assert_array_equal(out["labels"], built.decode(scores))
    for i, n in enumerate(sizes):
        chosen = scores.scores.log_softmax(-1)[i, range(n), out["labels"][i, :n]].numpy()
        np.testing.assert_allclose(out["token_log_probs"][i, :n], chosen, atol=1e-4)
        np.testing.assert_allclose(out["pair_log_probs"][i, 1:n], chosen[1:] + chosen[:-1], atol=1e-4)


@EVERY_CONTEXT
@pytest.mark.parametrize("lengths", [[1], [1, 6, 3], [20, 2]])
@pytest.mark.parametrize("kind", ["biaffine", "labeller"])
def test_a_parsers_graph_gives_the_greedy_heads_and_relations(tmp_path, kind, lengths, context):
    built = model(card(kind, **CONTEXTS[context]))
    words, sizes = batch(lengths)
    out = opened(tmp_path, graph_of(built, kind)).run(**feeds(built, words, sizes))
    distribution = heads_of(built, words, sizes)
    arcs, relations = built.decode(distribution)
    log_probs = distribution.scores.flatten(2).log_softmax(-1).view_as(distribution.scores)
    for i, n in enumerate(lengths):
        heads = arcs[i, :n].argmax(-1)
        np.testing.assert_array_equal(out["heads"][i, :n], heads)
        np.testing.assert_array_equal(out["relations"][i, :n], relations[i, range(n), heads])
        chosen = log_probs[i, range(n), heads, relations[i, range(n), heads]]
        np.testing.assert_allclose(out["log_probs"][i, :n], chosen, atol=1e-4)
        assert (out["heads"][i] <= n).all()
        assert not out["heads"][i, n:].any()
        assert not out["log_probs"][i, n:].any()
        if kind == "biaffine":  # for the repair of trees
            inside = distribution.allowed[i, :n]
            found = out["arc_log_probs"][i, :n][inside.numpy()]
            np.testing.assert_allclose(found, arcs[i, :n][inside], atol=1e-4)


def test_the_relations_graph_gives_the_best_relation_of_any_arc(tmp_path):
    built = model(card("biaffine"))
    words, sizes = batch([5])
    out = opened(tmp_path, graph_of(built, "biaffine")).run(**feeds(built, words, sizes))
    distribution = heads_of(built, words, sizes)
    token, head = distribution.allowed[0].nonzero().T.numpy()
    (tmp_path / "second").mkdir()
    best = opened(tmp_path / "second", relations_graph(built, PRODUCTS["fp32"])).run(
        dependents=out["dependents"][token], governors=out["governors"][np.where(head == 0, 5, head - 1)]
    )
    np.testing.assert_array_equal(best["relations"], distribution.scores.argmax(-1)[0, token, head])
    expected = distribution.scores.softmax(-1).amax(-1).log()[0, token, head]
    np.testing.assert_allclose(best["relation_log_probs"], expected, atol=1e-4)


@pytest.mark.parametrize("precision", PRODUCTS)
@EVERY_CONTEXT
@pytest.mark.parametrize("kind", KINDS)
def test_other_sentences_of_the_batch_change_an_answer_by_rounding_at_most(
    tmp_path, kind, context, precision
):
    """On most processors by no bit; some kernels add up in an order that depends on the rows beside."""
    built = model(card(kind, **CONTEXTS[context]))
    graph = opened(tmp_path, graph_of(built, kind, precision))
    words, sizes = batch([8, 1, 30, 3, 8, 2, 17])
    together = graph.run(**feeds(built, words, sizes))
    for some in ([0], [1], [2], [5, 3], [6, 4, 0, 1]):
        longest = sizes[some].max()
        alone = graph.run(**feeds(built, words[some, :longest], sizes[some]))
        for name in PER_TOKEN & set(alone):
            expected = together[name][some, :longest]
            if np.issubdtype(expected.dtype, np.integer):
                np.testing.assert_array_equal(alone[name], expected, err_msg=name)
            else:
                allowed = ROUNDING[precision]
                np.testing.assert_allclose(alone[name], expected, rtol=allowed, atol=allowed, err_msg=name)


@EVERY_CONTEXT
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(tmp_path, kind, context):
    built = model(card(kind, **CONTEXTS[context]))
    graph = opened(tmp_path, graph_of(built, kind))
    words, sizes = batch([3, 9, 1])
    inputs = feeds(built, words, sizes)
    expected = graph.run(**inputs)
    longer = np.pad(inputs["words"], ((0, 0), (0, 4)), constant_values=7)
    longer[:, :9] = np.where(np.arange(9) < sizes[:, None], inputs["words"], 11)
    found = graph.run(**(inputs | {"words": longer}))
    for name in PER_TOKEN & set(found):
        np.testing.assert_array_equal(found[name][:, :9], expected[name], err_msg=name)
        assert not found[name][:, 9:].any()


@pytest.mark.parametrize("kind", KINDS)
@EVERY_CONTEXT
@pytest.mark.parametrize("sharpness", [0.0, 1e4])
def test_no_weights_make_an_output_other_than_a_log_probability(tmp_path, kind, context, sharpness):
    words, sizes = batch([20, 1, 7])
    built = model(card(kind, **CONTEXTS[context]), sharpness=sharpness)
    graph = opened(tmp_path, graph_of(built, kind))
    for name, values in graph.run(**feeds(built, words * 100, sizes)).items():
        assert np.isfinite(values).all(), name
        if name.endswith("log_probs"):
            assert (values <= 1e-6).all(), name


@pytest.mark.parametrize("layers", [1, 2])
def test_int8_is_the_lstm_with_rounded_weights_and_rounded_states(tmp_path, layers):
    built = model(card("labeller", layers=layers, hidden_size=16))
    words, sizes = batch([9, 1, 4])
    out = opened(tmp_path, graph_of(built, "labeller", "int8")).run(**feeds(built, words, sizes))
    wanted = _rounded_scores(built, words, sizes).log_softmax(-1)  # [T, K]
    allowed = out["label_log_probs"] > -1e3
    wanted = torch.where(torch.from_numpy(allowed), wanted, -torch.inf).log_softmax(-1)
    np.testing.assert_allclose(out["label_log_probs"][allowed], wanted[allowed], atol=2e-3)
    exact = opened(tmp_path, graph_of(built, "labeller")).run(**feeds(built, words, sizes))
    assert np.abs(exact["label_log_probs"] - out["label_log_probs"])[allowed].max() > 4e-3


@pytest.mark.parametrize("kind", KINDS)
@EVERY_CONTEXT
def test_an_int8_graph_has_no_float_product_in_its_context_and_an_fp32_graph_is_refused(kind, context):
    described = card(kind, **CONTEXTS[context])
    built = model(described)
    check_quantised(graph_of(built, kind, "int8"), described)
    with pytest.raises(QuantisationError, match=r"0 products of integers and [23] of floats"):
        check_quantised(graph_of(built, kind), described)


def test_an_int8_graph_of_fewer_layers_than_the_model_is_refused():
    lstm, convolutions = card("crf"), card("crf", **CONTEXTS["convolution"])
    with pytest.raises(QuantisationError, match="1 LSTM layers, the model 2"):
        check_quantised(graph_of(model(lstm), "crf", "int8"), replace(lstm, layers=2))
    with pytest.raises(QuantisationError, match="3 products of integers and 0 of floats"):
        check_quantised(
            graph_of(model(convolutions), "crf", "int8"), replace(convolutions, dilations=(1, 3, 1, 2))
        )


@EVERY_CONTEXT
def test_no_sum_of_bytes_and_weights_can_saturate_sixteen_bits(context):
    graph = graph_of(model(card("crf", **CONTEXTS[context])), "crf", "int8").graph
    assert all(node.op_type != "DynamicQuantizeLinear" for node in graph.node)
    bodies = [node.attribute[0].g for node in graph.node if node.op_type == "Loop"]
    tensors = [tensor for part in (graph, *bodies) for tensor in part.initializer]
    weights = [onnx.numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8]
    assert weights
    assert all(255 * 2 * np.abs(w.astype(int)).max() < 2**15 for w in weights)


def test_int8_is_the_convolutions_with_rounded_weights_and_rounded_states(tmp_path):
    built = model(card("labeller", **CONTEXTS["convolution"]))
    words, sizes = batch([9, 1, 4])
    out = opened(tmp_path, graph_of(built, "labeller", "int8")).run(**feeds(built, words, sizes))
    exact = opened(tmp_path, graph_of(built, "labeller")).run(**feeds(built, words, sizes))
    allowed = exact["label_log_probs"] > -1e3
    assert np.abs(exact["label_log_probs"] - out["label_log_probs"])[allowed].max() > 1e-2
    context = built.representation.context
    norms = [context.window_norm, *context.norms]
    with torch.no_grad():
        for layer, norm in zip([*context.convolutions, built.label_scores], norms, strict=True):
            layer.weight.copy_(_rounded(layer.weight))
            layer.register_forward_pre_hook(partial(_round_states, norm))
        scores = built.label_scores(context(torch.from_numpy(words), torch.from_numpy(sizes)))  # [B, n, K]
    wanted = torch.cat([some[:n] for some, n in zip(scores, sizes, strict=True)])  # [T, K]
    wanted = torch.where(torch.from_numpy(allowed), wanted, -torch.inf).log_softmax(-1)
    np.testing.assert_allclose(out["label_log_probs"][allowed], wanted[allowed], atol=2e-3)


def _round_states(norm: torch.nn.LayerNorm, layer: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """What a layer after a norm reads in int8."""
    scale = (LARGEST * norm.weight.abs() + norm.bias.abs()).max() / 127
    return (inputs[0] / scale).round().clamp(-128, 127) * scale


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().amax(1, keepdim=True) / WEIGHT_LEVELS
    return (weight / scale).round() * scale


@pytest.mark.parametrize("kind", ["biaffine", "labeller"])
def test_convolutions_have_no_loop(kind):
    graph = graph_of(model(card(kind, **CONTEXTS["convolution"])), kind).graph
    assert all(node.op_type != "Loop" for node in graph.node)


def test_a_step_computes_no_constants(tmp_path):
    for kind in KINDS:
        graph = graph_of(model(card(kind)), kind).graph
        lstm = next(
            body
            for body in (n.attribute[0].g for n in graph.node if n.op_type == "Loop")
            if any(n.op_type == "Sigmoid" for n in body.node)
        )
        assert not {"Range", "ReduceSum", "Less", "Reshape", "TopK"} & {n.op_type for n in lstm.node}, kind


@pytest.mark.parametrize(("context", "projected"), [("lstm", 8 * 7), ("convolution", 3 * 7)])
def test_inputs_and_outputs_have_dynamic_batch_and_tokens(context, projected):
    for kind in KINDS:
        graph = graph_of(model(card(kind, **CONTEXTS[context])), kind).graph
        assert [value.name for value in graph.input] == ["rows", "words", "lengths"]
        shapes = [
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input
        ]
        assert shapes == [["distinct", projected], ["batch", "tokens"], ["batch"]]


def _rounded_scores(built: Any, words: Any, lengths: Any) -> torch.Tensor:
    """A labeller's scores of all tokens [T, K], its weights and states rounded as int8 rounds them."""

    def read(state: torch.Tensor) -> torch.Tensor:
        return (state * 127).round() / 127

    lstm = built.representation.context.lstm
    rows = []
    with torch.no_grad():
        for sentence, n in zip(torch.from_numpy(words), lengths, strict=True):
            features = sentence[:n]  # [n, D]
            for layer in range(lstm.num_layers):
                both = []
                for way in ("", "_reverse"):
                    name = f"l{layer}{way}"
                    into = getattr(lstm, f"weight_ih_{name}")
                    x = (features @ into.T if layer == 0 else read(features) @ _rounded(into).T) + (
                        getattr(lstm, f"bias_ih_{name}") + getattr(lstm, f"bias_hh_{name}")
                    )
                    recurrent = _rounded(getattr(lstm, f"weight_hh_{name}"))
                    h = c = torch.zeros(lstm.hidden_size)
                    found = []
                    for gates in x.flip(0) if way else x:
                        i, f, g, o = (gates + recurrent @ read(h)).chunk(4)
                        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                        h = o.sigmoid() * c.tanh()
                        found.append(h)
                    both.append(torch.stack(found[::-1] if way else found))
                features = torch.cat(both, -1)  # [n, 2H]
            rows.append(read(features) @ _rounded(built.label_scores.weight).T + built.label_scores.bias)
    return torch.cat(rows)
