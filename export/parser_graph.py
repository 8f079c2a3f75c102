"""Parsers as ONNX graphs: the greedy heads and relations, and what repairs those that are no tree."""

import numpy as np
import onnx
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var, argument, build

from export.layers import axis, bidirectional, constant, inputs, linear, lstm_of, positions, size_of, weights
from train.models.parsers import BiaffineParser, SequenceLabellingParser
from train.structs import FORBIDDEN

SLOPE = 0.1
"""Of the leaky rectifier, as in `BiaffineParser`."""


def biaffine_graph(model: BiaffineParser) -> onnx.ModelProto:
    """Words to each token's most probable head and that arc's most probable relation.

    Inputs: ``words`` [batch, tokens, D] float32, ``lengths`` [batch] int64. Outputs, 0 on padding:
    ``heads`` and ``relations`` [batch, tokens] int64, and ``log_probs`` [batch, tokens], log P(head) + log
    P(relation | head). For sentences whose heads are no tree: ``arc_log_probs`` [batch, tokens, tokens+1],
    and for `relations_graph` ``dependents`` [batch, tokens, K] and ``governors`` [batch, tokens+1, K].
    """
    words, lengths = inputs(lstm_of(model.representation).input_size)
    states = bidirectional(lstm_of(model.representation), words, lengths, time_major=False)  # [B, n, 2H]
    layers = (model.arc_dependent, model.arc_head, model.relation_dependent, model.relation_head)
    projected = linear(
        states,
        np.concatenate([weights(layer.weight) for layer in layers]),
        np.concatenate([weights(layer.bias) for layer in layers]),
    )
    arc_dependents, arc_heads, dependents, governors = op.split(
        op.leaky_relu(projected, alpha=SLOPE), axis(*(layer.out_features for layer in layers)), axis=-1
    )
    arc_heads = _with_root(model, model.arc_head, arc_heads)  # [B, n+1, A]
    governors = _with_root(model, model.relation_head, governors)  # [B, n+1, K]

    arcs = op.matmul(
        linear(arc_dependents, weights(model.arc.weight)), op.transpose(arc_heads, perm=[0, 2, 1])
    )  # [B, n, n+1]
    bias = op.transpose(linear(arc_heads, weights(model.arc_bias.weight)), perm=[0, 2, 1])  # [B, 1, n+1]
    tokens = size_of(words, 1)
    allowed = _allowed(lengths, tokens)  # [B, n, n+1]
    arcs = op.where(allowed, op.add(arcs, bias), op.const(np.float32(FORBIDDEN)))
    arc_log_probs = op.log_softmax(arcs, axis=-1)  # [B, n, n+1]
    heads = op.arg_max(arcs, axis=-1)  # [B, n, 1]
    head_log_probs = op.squeeze(op.gather_elements(arc_log_probs, heads, axis=2), axis(2))  # [B, n]
    chosen = op.gather_nd(governors, heads, batch_dims=1)  # [B, n, K]
    relations, relation_log_probs = _relations(model, dependents, chosen)  # [B, n] each
    return _outputs(
        words,
        lengths,
        heads=op.squeeze(heads, axis(2)),
        relations=relations,
        log_probs=op.add(head_log_probs, relation_log_probs),
        arc_log_probs=arc_log_probs,
        dependents=dependents,
        governors=governors,
    )


def relations_graph(model: BiaffineParser) -> onnx.ModelProto:
    """The relations of given arcs, from both ends' projections.

    Inputs: ``dependents`` and ``governors`` [arcs, K] float32, rows of `biaffine_graph`'s outputs. Outputs:
    ``relations`` [arcs] int64 and ``relation_log_probs`` [arcs], log P(relation | head).
    """
    size = model.relation_dependent.out_features
    dependents = argument(Tensor(np.float32, ("arcs", size)))
    governors = argument(Tensor(np.float32, ("arcs", size)))
    relations, log_probs = _relations(model, dependents, governors)
    return build(
        {"dependents": dependents, "governors": governors},
        {"relations": relations, "relation_log_probs": log_probs},
    )


def labeller_graph(model: SequenceLabellingParser) -> onnx.ModelProto:
    """Words to each token's most probable label (relative head, relation) that points into the sentence.

    Inputs and outputs as `biaffine_graph`, where ``log_probs`` is that of the label, and instead of arcs
    there is ``label_log_probs`` [batch, tokens, labels], FORBIDDEN for labels that point out of it.
    """
    words, lengths = inputs(lstm_of(model.representation).input_size)
    states = bidirectional(lstm_of(model.representation), words, lengths, time_major=False)  # [B, n, 2H]
    scores = linear(states, weights(model.label_scores.weight), weights(model.label_scores.bias))  # [B, n, K]
    offsets = constant(model.offsets.cpu().numpy())  # [K]
    root = constant(model.offsets.cpu().numpy() == 0)
    dependent = op.add(op.unsqueeze(positions(size_of(words, 1)), axis(1)), op.const(np.int64(1)))  # [n, 1]
    pointed = op.add(dependent, offsets)  # [n, K]
    before = op.unsqueeze(op.greater(pointed, op.const(np.int64(0))), axis(0))  # [1, n, K]
    behind = op.less_or_equal(op.unsqueeze(pointed, axis(0)), op.unsqueeze(lengths, axis(1, 2)))  # [B, n, K]
    allowed = op.or_(root, op.and_(before, behind))  # [B, n, K]
    label_log_probs = op.log_softmax(op.where(allowed, scores, op.const(np.float32(FORBIDDEN))), axis=-1)
    best = op.arg_max(label_log_probs, axis=-1)  # [B, n, 1]
    label = op.squeeze(best, axis(2))  # [B, n]
    heads = op.where(
        op.gather(root, label),
        op.const(np.int64(0)),
        op.add(op.squeeze(dependent, axis(1)), op.gather(offsets, label)),
    )
    return _outputs(
        words,
        lengths,
        heads=heads,
        relations=op.gather(constant(model.kinds.cpu().numpy()), label),
        log_probs=op.squeeze(op.gather_elements(label_log_probs, best, axis=2), axis(2)),
        label_log_probs=label_log_probs,
    )


def _with_root(model: BiaffineParser, layer: object, projected: Var) -> Var:
    """The root's projection, a constant of the model, before the tokens': [B, n, K] -> [B, n+1, K]."""
    weight, bias = weights(layer.weight), weights(layer.bias)  # type: ignore[attr-defined]
    root = weight @ weights(model.root) + bias  # [K]
    root = np.where(root > 0, root, np.float32(SLOPE) * root)[None, None]  # [1, 1, K]
    shape = op.concat([op.shape(projected, start=0, end=1), axis(1, root.shape[2])], axis=0)
    return op.concat([op.expand(constant(root), shape), projected], axis=1)


def _relations(model: BiaffineParser, dependents: Var, governors: Var) -> tuple[Var, Var]:
    """The best relation of each arc and its log-probability: [..., K] twice -> [...] twice."""
    layers = (model.relation_product, model.relation_of_dependent, model.relation_of_head)
    features = op.concat([op.mul(dependents, governors), dependents, governors], axis=-1)  # [..., 3K]
    scores = linear(
        features,
        np.concatenate([weights(layer.weight) for layer in layers], axis=1),
        weights(model.relation_product.bias),
    )  # [..., R]
    log_probs = op.log_softmax(scores, axis=-1)
    return op.arg_max(scores, axis=-1, keepdims=0), op.reduce_max(log_probs, axis(-1), keepdims=0)


def _allowed(lengths: Var, tokens: Var) -> Var:
    """Heads within the sentence other than the token itself: [B, n, n+1]; see `train.structs.heads`."""
    one = op.const(np.int64(1))
    head = positions(op.add(tokens, one))  # [n+1]
    dependent = op.unsqueeze(op.add(positions(tokens), one), axis(1))  # [n, 1]
    inside = op.less_or_equal(head, op.unsqueeze(lengths, axis(1)))  # [B, n+1]
    other = op.not_(op.equal(head, dependent))  # [n, n+1]
    return op.and_(op.unsqueeze(inside, axis(1)), other)


def _outputs(
    words: Var, lengths: Var, *, heads: Var, relations: Var, log_probs: Var, **repair: Var
) -> onnx.ModelProto:
    inside = op.less(positions(size_of(words, 1)), op.unsqueeze(lengths, axis(1)))  # [B, n]
    none = op.const(np.int64(0))
    outputs = {
        "heads": op.where(inside, heads, none),
        "relations": op.where(inside, relations, none),
        "log_probs": op.where(inside, log_probs, op.const(np.float32(0))),
    }
    return build({"words": words, "lengths": lengths}, outputs | repair)
