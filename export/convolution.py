"""Convolutions over projected words as an ONNX graph, without padding and without a loop.

All tokens of a batch lie in one table [T, H], sentence by sentence. The window of a token is a gather of
three rows: itself and those a dilation away, or a row of zeros where the sentence ends before. A layer is
then one product of all windows. In the first window each word meets a matrix of its own position, so that
the three products belong to the words (`structural_kd.word_projection`), and only their sum is left.
"""

from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Var
from torch import nn

from export.inputs import InputVars, token_places
from export.layers import axis, constant, linear, positions, size_of, weights
from export.products import Product
from train.models.convolution import SentenceConvolution

WIDTH = 3
"""Of a window, in words."""

LARGEST = 8.0
"""Standard deviations of a normalised value that int8 tells apart; a trained student has up to 6.5. None is
above √(H − 1), at some half more of rounding."""


def word_projection(
    context: SentenceConvolution, encoded_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The products of a word's features in each position of the first window, before, at and after a token:
    weight [D, 3H]. The bias [3H] is that of the window, at the token.

    Raises:
        ValueError: the context reads an encoder.
    """
    if encoded_size:
        raise ValueError(
            "convolutions over an encoder's features can not be exported; train the model with context: lstm"
        )
    before, at, after = np.split(weights(context.window.weight), WIDTH, axis=1)  # [H, D] each
    bias = weights(context.window.bias)  # [H]
    none = np.zeros_like(bias)
    return np.ascontiguousarray(np.concatenate([before, at, after]).T), np.concatenate([none, bias, none])


@dataclass(frozen=True)
class ConvolutionStates:
    """The states [T, H] of all tokens, as their norm left them, and where they are.

    place: of each token [B, n], in the states; anything valid on padding.
    inside: [B, n], true on tokens.
    """

    states: Var
    norm: nn.LayerNorm
    place: Var
    inside: Var
    product: Product

    def scores(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states, for few outputs: weight [K, H], bias [K] -> [B, n, K]."""
        return op.gather(linear(self.states, weight, bias), self.place)

    def linear(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states of all tokens: weight [K, H], bias [K] -> [T, K]."""
        return self.product(self.states, weight, constant(bias), largest=_largest(self.norm))


def convolutions(context: SentenceConvolution, inputs: InputVars, product: Product) -> ConvolutionStates:
    """The states of a window and any number of convolutions."""
    inside = op.less(positions(size_of(inputs.words, 1)), op.unsqueeze(inputs.lengths, axis(1)))  # [B, n]
    places = _window_places(inside, inputs.lengths, [1, *context.dilations])  # [T, 3] of each dilation
    words = op.compress(op.reshape(inputs.words, axis(-1)), op.reshape(inside, axis(-1)))  # [T]
    norm, hidden = context.window_norm, context.output_size
    states = _normalised(op.relu(_word_windows(inputs.rows, words, places[1], hidden)), norm)  # [T, H]
    for layer, after, dilation in context.layers():
        largest = _largest(norm)
        window = _windows(product.read(states, largest), product.zero, places[dilation], hidden)  # [T, 3H]
        weight, bias = weights(layer.weight), constant(weights(layer.bias))
        update = op.relu(product.multiply(window, weight, bias, largest))  # [T, H]
        states, norm = _normalised(op.add(states, update), after), after  # [T, H]
    return ConvolutionStates(states, norm, token_places(inside), inside, product)


def _window_places(inside: Var, lengths: Var, dilations: list[int]) -> dict[int, Var]:
    """Of each dilation the places of a token's window among all tokens, T beyond the sentence: [T, 3]."""
    sentence, position = (
        op.squeeze(part, axis(0)) for part in op.split(op.non_zero(inside), axis=0, num_outputs=2)
    )  # [T] each
    distinct = sorted(set(dilations))
    offsets = constant(np.array([[-d, 0, d] for d in distinct])[:, None])  # [dilations, 1, 3]
    position = op.add(op.unsqueeze(position, axis(1)), offsets)  # [dilations, T, 3]
    tokens = size_of(sentence, 0)
    place = op.add(op.unsqueeze(positions(tokens), axis(1)), offsets)  # [dilations, T, 3]
    within = op.and_(
        op.greater_or_equal(position, op.const(np.int64(0))),
        op.less(position, op.unsqueeze(op.gather(lengths, sentence), axis(1))),
    )
    place = op.where(within, place, tokens)
    return {d: op.gather(place, op.const(np.int64(i))) for i, d in enumerate(distinct)}


def _word_windows(rows: Var, words: Var, places: Var, hidden: int) -> Var:
    """The first window's products: rows [W, 3H] of distinct words, words [T], places [T, 3] -> [T, H]."""
    distinct = op.shape(rows, start=0, end=1)  # [1]
    words = op.gather(op.concat([words, distinct], axis=0), places)  # [T, 3], W beyond the sentence
    position = constant(np.arange(WIDTH))
    of_position = op.add(op.mul(words, op.const(np.int64(WIDTH))), position)  # [T, 3]
    rows = op.concat([rows, constant(np.zeros((1, WIDTH * hidden), np.float32))], axis=0)  # [W+1, 3H]
    read = op.gather(op.reshape(rows, axis(-1, hidden)), of_position)  # [T, 3, H]
    return op.reduce_sum(read, axis(1), keepdims=0)


def _windows(table: Var, zero: NDArray, places: Var, hidden: int) -> Var:
    """The rows of each token's window, side by side: [T, H], [T, 3] -> [T, 3H]."""
    beyond = constant(np.full((1, hidden), zero))
    return op.reshape(op.gather(op.concat([table, beyond], axis=0), places), axis(-1, WIDTH * hidden))


def _normalised(x: Var, norm: nn.LayerNorm) -> Var:
    weight, bias = constant(weights(norm.weight)), constant(weights(norm.bias))
    return op.layer_normalization(x, weight, bias, epsilon=norm.eps)[0]


def _largest(norm: nn.LayerNorm) -> float:
    """The largest state that int8 reads."""
    return float((LARGEST * np.abs(weights(norm.weight)) + np.abs(weights(norm.bias))).max())
