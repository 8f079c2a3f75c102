"""A bidirectional LSTM over projected words as an ONNX graph, without padding.

Sentences are put in order of falling length, so that those which still have a token at a step are the first
rows of every table: a step computes these rows and no others, as torch's packed sequences do. The input
projection is not part of the loop: in the first layer it belongs to the words
(`structural_kd.word_projection`), in the others it is one product for all tokens. A step computes one product
of the states a direction, and the gates.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Var
from torch import nn

from export.inputs import InputVars, token_places
from export.layers import axis, constant, linear, loop, positions, size_of, weights
from export.products import Product
from train.models.lstm import SentenceLSTM

DIRECTIONS = ("", "_reverse")


def word_projection(
    context: SentenceLSTM, encoded_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first layer's projection of a word's features: weight [D, G] and bias [G], the gates of both
    directions.

    Encoder features stand before a word's own, and are projected in the graph.
    """
    weight, bias = _projection(context.lstm, 0)  # [G, E + D], [G]
    return np.ascontiguousarray(weight[:, encoded_size:].T), bias


@dataclass(frozen=True)
class LSTMStates:
    """The states [·, H] of each direction, in the order in which they were computed, and where they are.

    at: of each token [B, n], its places in both directions' states; anything valid on padding.
    inside: [B, n], true on tokens.
    """

    forward: Var
    backward: Var
    at: tuple[Var, Var]
    inside: Var
    product: Product

    def scores(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states, for few outputs: weight [K, 2H], bias [K] -> [B, n, K]."""
        half = weight.shape[1] // 2
        ahead = linear(self.forward, weight[:, :half], bias)  # [·, K]
        behind = linear(self.backward, weight[:, half:])  # [·, K]
        return op.add(op.gather(ahead, self.at[0]), op.gather(behind, self.at[1]))

    def linear(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states of all tokens: weight [K, 2H], bias [K] -> [T, K]."""
        return self.product(self.tokens(), weight, constant(bias))

    def tokens(self) -> Var:
        """The states of all tokens, sentence by sentence, without padding: [T, 2H]."""
        inside = op.reshape(self.inside, axis(-1))
        places = [op.compress(op.reshape(at, axis(-1)), inside) for at in self.at]  # [T] each
        return op.concat(
            [op.gather(states, at) for states, at in zip((self.forward, self.backward), places, strict=True)],
            axis=1,
        )


def bilstm(context: SentenceLSTM, inputs: InputVars, product: Product) -> LSTMStates:
    """The states of a BiLSTM of any number of layers."""
    lstm = context.lstm
    order = _Order(inputs)
    rows, words = inputs.rows, inputs.words
    if inputs.encoded is not None:
        rows, words = _with_encoder(lstm, inputs, order), order.place  # [T, G], [B, n]
    states = _layer(lstm, 0, rows, words, order, product)
    for layer in range(1, lstm.num_layers):
        weight, bias = _projection(lstm, layer)  # [G, 2H], [G]
        rows = states.linear(weight, bias)  # [T, G]
        states = _layer(lstm, layer, rows, order.place, order, product)
    return states


class _Order:
    """Sentences by falling length, and how many of them have a token at each step."""

    def __init__(self, inputs: InputVars) -> None:
        lengths = inputs.lengths
        count = op.shape(lengths)  # [1]
        self.lengths, self.sentences = op.top_k(lengths, count)  # [B] each
        _, rank = op.top_k(self.sentences, count, largest=0)  # [B]
        self.count = size_of(lengths, 0)
        self.steps = op.reduce_max(lengths, keepdims=0)
        step = op.unsqueeze(positions(self.steps), axis(1))  # [S, 1]
        self.active = op.reduce_sum(
            op.cast(op.less(step, lengths), to=np.int64), axis(1), keepdims=1
        )  # [S, 1]
        rest = op.sub(self.count, self.active)  # [S, 1]
        none = op.mul(rest, op.const(np.int64(0)))
        self.padding = op.concat([none, none, rest, none], axis=1)  # [S, 4] of rows, to all of the batch
        token = positions(size_of(inputs.words, 1))  # [n]
        length = op.unsqueeze(lengths, axis(1))  # [B, 1]
        self.inside = op.less(token, length)  # [B, n]
        self.place = token_places(self.inside)  # [B, n]
        mirrored = op.sub(length, op.add(token, op.const(np.int64(1))))  # [B, n]
        rank = op.unsqueeze(rank, axis(1))  # [B, 1]

        def at(step: Var) -> Var:
            return op.where(self.inside, op.add(op.mul(step, self.count), rank), op.const(np.int64(0)))

        self.at = at(token), at(mirrored)  # [B, n] each

    def by_step(self, words: Var) -> tuple[Var, Var]:
        """Words [B, n] in the order in which each direction reads them: [S, B] twice."""
        ordered = op.gather(words, self.sentences)  # [B, n]
        step = positions(self.steps)  # [S]
        last = op.sub(op.unsqueeze(self.lengths, axis(1)), op.const(np.int64(1)))  # [B, 1]
        mirrored = op.max([op.sub(last, step), op.const(np.int64(0))])  # [B, S]
        return (
            op.gather(op.transpose(ordered, perm=[1, 0]), step),
            op.transpose(op.gather_elements(ordered, mirrored, axis=1), perm=[1, 0]),
        )


def _with_encoder(lstm: nn.LSTM, inputs: InputVars, order: _Order) -> Var:
    """Projected words and projected encoder features of all tokens: [T, G]."""
    assert inputs.encoded is not None
    size = inputs.encoded_size
    weight, _ = _projection(lstm, 0)  # [G, E + D]
    inside = op.reshape(order.inside, axis(-1))
    encoded = op.compress(op.reshape(inputs.encoded, axis(-1, size)), inside, axis=0)  # [T, E]
    words = op.compress(op.reshape(inputs.words, axis(-1)), inside)  # [T]
    return op.add(op.gather(inputs.rows, words), linear(encoded, weight[:, :size]))


def _layer(lstm: nn.LSTM, layer: int, rows: Var, words: Var, order: _Order, product: Product) -> LSTMStates:
    hidden = lstm.hidden_size
    # The gates of the two directions are rows of their own: no copy to take them apart.
    rows = op.reshape(rows, axis(-1, 4 * hidden))  # [2W, 4H]
    two, one = op.const(np.int64(2)), op.const(np.int64(1))
    ahead, behind = order.by_step(words)  # [S, B] each
    reads = (op.mul(ahead, two), op.add(op.mul(behind, two), one))
    recurrent = [_gates(weights(getattr(lstm, f"weight_hh_l{layer}{way}"))) for way in DIRECTIONS]

    def step(i: Var, *states: Var) -> tuple[list[Var], list[Var]]:
        active, padding = op.gather(order.active, i), op.gather(order.padding, i)  # [1], [4]
        after, outputs = [], []
        for direction, read in enumerate(reads):
            h, c = (_first(state, active) for state in states[2 * direction : 2 * direction + 2])  # [b, H]
            x = op.gather(rows, _first(op.gather(read, i), active))  # [b, 4H]
            h, c = _cell(product(h, recurrent[direction], x), c, hidden)
            after += [h, c]
            outputs.append(op.pad(h, padding))  # [B, H]
        return after, outputs

    shape = op.concat([op.unsqueeze(order.count, axis(0)), axis(hidden)], axis=0)
    zero = op.constant_of_shape(shape, value=np.zeros(1, np.float32))  # [B, H]
    outputs = loop(order.steps, [zero] * 4, step, reads=[order.active, order.padding, rows, *reads])
    forward, backward = (op.reshape(states, axis(-1, hidden)) for states in outputs)  # [S·B, H] each
    return LSTMStates(forward, backward, order.at, order.inside, product)


def _cell(gates: Var, c: Var, hidden: int) -> tuple[Var, Var]:
    """Gates [b, 4H] (input, output, forget, cell) and cell states [b, H] to new hidden and cell states."""
    open_, new = op.split(gates, axis(3 * hidden, hidden), axis=1)
    i, o, f = op.split(op.sigmoid(open_), axis(hidden, hidden, hidden), axis=1)  # [b, H] each
    c = op.add(op.mul(f, c), op.mul(i, op.tanh(new)))
    return op.mul(o, op.tanh(c)), c


def _first(x: Var, count: Var) -> Var:
    """The first rows of x: [B, …], count [1] -> [count, …]."""
    return op.slice(x, axis(0), count, axis(0))


def _projection(lstm: nn.LSTM, layer: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A layer's input weights [8H, in] and biases [8H], gates of both directions."""
    names = [f"l{layer}{way}" for way in DIRECTIONS]
    weight = [_gates(weights(getattr(lstm, f"weight_ih_{name}"))) for name in names]
    bias = [
        _gates(weights(getattr(lstm, f"bias_ih_{name}"))) + _gates(weights(getattr(lstm, f"bias_hh_{name}")))
        for name in names
    ]
    return np.concatenate(weight), np.concatenate(bias)


def _gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Torch's gates (input, forget, cell, output) with the three that share an activation side by side."""
    i, f, g, o = np.split(values, 4)
    return np.concatenate([i, o, f, g])
