"""Parsers as ONNX graphs: greedy heads and relations, and the scores to repair those that are no tree."""

import numpy as np
import onnx
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var, argument, build
from torch import nn

from export.context import context_states, input_vars
from export.inputs import InputVars, token_places
from export.layers import axis, constant, linear, positions, size_of, weights
from export.products import Product
from train.models.parsers import BiaffineParser, SequenceLabellingParser
from train.structs import FORBIDDEN

SLOPE = 0.1
"""Of the leaky rectifier, as in `BiaffineParser`."""


def biaffine_graph(model: BiaffineParser, product: Product) -> onnx.ModelProto:
    """Words to each token's most probable head and that arc's most probable relation.

    Inputs: see `export.inputs.InputVars`. Outputs, 0 on padding: ``heads`` and ``relations`` [batch, tokens]
    int64, and ``log_probs`` [batch, tokens], log P(head) + log P(relation | head). For sentences whose heads
    are no tree: ``arc_log_probs`` [batch, tokens, tokens+1], and for `relations_graph` the rows of all
    tokens, sentence by sentence without padding, ``dependents`` [T, K] and ``governors`` [T+1, K], the
    root's last.
    """
    inputs = input_vars(model.representation)
    states = context_states(model.representation, inputs, product)
    layers = (model.arc_dependent, model.arc_head, model.relation_dependent, model.relation_head)
    projected = states.linear(
        np.concatenate([weights(layer.weight) for layer in layers]),
        np.concatenate([weights(layer.bias) for layer in layers]),
    )  # [T, 2A + 2K]
    arc_dependents, arc_heads, dependents, governors = op.split(
        op.leaky_relu(projected, alpha=SLOPE), axis(*(layer.out_features for layer in layers)), axis=-1
    )
    place = token_places(states.inside)  # [B, n]
    root = op.squeeze(op.reduce_max(op.add(place, op.const(np.int64(1)))), axis(0, 1))  # T, the root's place
    places = _with_root(place, root)  # [B, n+1]
    governors = op.concat([governors, _of_root(model, model.relation_head)], axis=0)  # [T+1, K]
    arc_heads = op.concat([arc_heads, _of_root(model, model.arc_head)], axis=0)  # [T+1, A]

    arcs = op.matmul(
        op.gather(linear(arc_dependents, weights(model.arc.weight)), place),
        op.transpose(op.gather(arc_heads, places), perm=[0, 2, 1]),
    )  # [B, n, n+1]
    bias = op.squeeze(linear(arc_heads, weights(model.arc_bias.weight)), axis(1))  # [T+1]
    arcs = op.add(arcs, op.unsqueeze(op.gather(bias, places), axis(1)))
    if model.arc_distance:
        arcs = op.add(arcs, _distance_scores(model, arc_dependents, place))
    arcs = op.where(_allowed(inputs), arcs, op.const(np.float32(FORBIDDEN)))
    arc_log_probs = op.log_softmax(arcs, axis=-1)  # [B, n, n+1]
    heads = op.arg_max(arcs, axis=-1)  # [B, n, 1]
    head_log_probs = op.squeeze(op.gather_elements(arc_log_probs, heads, axis=2), axis(2))  # [B, n]
    heads = op.squeeze(heads, axis(2))
    chosen = op.compress(
        op.reshape(op.gather_elements(places, heads, axis=1), axis(-1)), op.reshape(states.inside, axis(-1))
    )  # [T] the heads' places
    relations, relation_log_probs = _relations(model, dependents, op.gather(governors, chosen))  # [T] each
    return _outputs(
        inputs,
        states.inside,
        heads=heads,
        relations=op.gather(relations, place),
        log_probs=op.add(head_log_probs, op.gather(relation_log_probs, place)),
        arc_log_probs=arc_log_probs,
        dependents=dependents,
        governors=governors,
    )


def relations_graph(model: BiaffineParser, product: Product) -> onnx.ModelProto:
    """The relations of given arcs, from both ends' projections.

    Inputs: ``dependents`` and ``governors`` [arcs, K] float32, rows of `biaffine_graph`'s outputs. Outputs:
    ``relations`` [arcs] int64 and ``relation_log_probs`` [arcs], log P(relation | head). It reads no states,
    so its weights are fp32 in every precision.
    """
    size = model.relation_dependent.out_features
    dependents = argument(Tensor(np.float32, ("arcs", size)))
    governors = argument(Tensor(np.float32, ("arcs", size)))
    relations, log_probs = _relations(model, dependents, governors)
    return build(
        {"dependents": dependents, "governors": governors},
        {"relations": relations, "relation_log_probs": log_probs},
    )


def labeller_graph(model: SequenceLabellingParser, product: Product) -> onnx.ModelProto:
    """Words to each token's most probable label (relative head, relation) that points into the sentence.

    Inputs and outputs as `biaffine_graph`, where ``log_probs`` is that of the label, and instead of arcs
    there is ``label_log_probs`` [T, labels] of all tokens, sentence by sentence without padding, FORBIDDEN
    for labels that point out of it.
    """
    inputs = input_vars(model.representation)
    states = context_states(model.representation, inputs, product)
    scores = states.linear(weights(model.label_scores.weight), weights(model.label_scores.bias))  # [T, K]
    offsets = constant(model.offsets.cpu().numpy())  # [K]
    root = constant(model.offsets.cpu().numpy() == 0)
    inside = op.reshape(states.inside, axis(-1))  # [B · n]
    one = op.const(np.int64(1))
    shape = op.shape(inputs.words)
    token = op.add(positions(size_of(inputs.words, 1)), one)  # [n], from 1
    dependent = op.unsqueeze(
        op.compress(op.reshape(op.expand(token, shape), axis(-1)), inside), axis(1)
    )  # [T, 1]
    length = op.unsqueeze(
        op.compress(op.reshape(op.expand(op.unsqueeze(inputs.lengths, axis(1)), shape), axis(-1)), inside),
        axis(1),
    )  # [T, 1]
    pointed = op.add(dependent, offsets)  # [T, K]
    within = op.and_(op.greater(pointed, op.const(np.int64(0))), op.less_or_equal(pointed, length))
    allowed = op.or_(root, within)  # [T, K]
    label_log_probs = op.log_softmax(op.where(allowed, scores, op.const(np.float32(FORBIDDEN))), axis=-1)
    best = op.arg_max(label_log_probs, axis=-1)  # [T, 1]
    label = op.squeeze(best, axis(1))  # [T]
    heads = op.where(
        op.gather(root, label),
        op.const(np.int64(0)),
        op.add(op.squeeze(dependent, axis(1)), op.gather(offsets, label)),
    )
    place = token_places(states.inside)  # [B, n]
    return _outputs(
        inputs,
        states.inside,
        heads=op.gather(heads, place),
        relations=op.gather(op.gather(constant(model.kinds.cpu().numpy()), label), place),
        log_probs=op.gather(op.squeeze(op.gather_elements(label_log_probs, best, axis=1), axis(1)), place),
        label_log_probs=label_log_probs,
    )


def _distance_scores(model: BiaffineParser, arc_dependents: Var, place: Var) -> Var:
    """Scores of the clipped distances to all heads, none to the root: [T, A], [B, n] -> [B, n, n+1]."""
    most, layer = model.arc_distance, model.distance
    weight, bias = weights(layer.weight), weights(layer.bias)
    # The root's column is one more output of the layer, zero for every token.
    weight, bias = np.vstack([weight, np.zeros_like(weight[:1])]), np.append(bias, np.float32(0))
    by_distance = op.gather(linear(arc_dependents, weight, bias), place)  # [B, n, 2M+2]
    token = positions(size_of(place, 1))  # [n]
    distance = op.sub(token, op.unsqueeze(token, axis(1)))  # [n, n] head less dependent
    clipped = op.clip(distance, op.const(np.int64(-most)), op.const(np.int64(most)))
    columns = op.add(clipped, op.const(np.int64(most)))  # [n, n]
    columns = op.pad(columns, axis(0, 1, 0, 0), op.const(np.int64(2 * most + 1)))  # [n, n+1]
    shape = op.concat([op.shape(place, start=0, end=1), op.shape(columns)], axis=0)
    return op.gather_elements(by_distance, op.expand(columns, shape), axis=2)


def _of_root(model: BiaffineParser, layer: nn.Linear) -> Var:
    """The root's projection, a constant of the model: [1, K]."""
    root = weights(layer.weight) @ weights(model.root) + weights(layer.bias)  # [K]
    return constant(np.where(root > 0, root, np.float32(SLOPE) * root)[None])


def _with_root(places: Var, root: Var) -> Var:
    """The root's place before the tokens': [B, n] -> [B, n+1]."""
    return op.pad(places, axis(0, 1, 0, 0), root)


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


def _allowed(inputs: InputVars) -> Var:
    """Heads within the sentence other than the token itself: [B, n, n+1]; see `train.structs.heads`."""
    one = op.const(np.int64(1))
    tokens = size_of(inputs.words, 1)
    head = positions(op.add(tokens, one))  # [n+1]
    dependent = op.unsqueeze(op.add(positions(tokens), one), axis(1))  # [n, 1]
    inside = op.less_or_equal(head, op.unsqueeze(inputs.lengths, axis(1)))  # [B, n+1]
    other = op.not_(op.equal(head, dependent))  # [n, n+1]
    return op.and_(op.unsqueeze(inside, axis(1)), other)


def _outputs(
    inputs: InputVars, inside: Var, *, heads: Var, relations: Var, log_probs: Var, **repair: Var
) -> onnx.ModelProto:
    none = op.const(np.int64(0))
    outputs = {
        "heads": op.where(inside, heads, none),
        "relations": op.where(inside, relations, none),
        "log_probs": op.where(inside, log_probs, op.const(np.float32(0))),
    }
    return build(inputs.named(), outputs | repair)
