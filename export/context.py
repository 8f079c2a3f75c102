"""Contexts as parts of graphs: what each reads of a word alone, and the states of a sentence's tokens.

A kind of context is one file here and one line in `CONTEXTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from spox import Var
from torch import nn

from export import convolution, lstm
from export.inputs import InputVars
from export.products import Product
from train.models.convolution import SentenceConvolution
from train.models.lstm import SentenceLSTM
from train.models.representation import Representation


class States(Protocol):
    """The states of all tokens of a batch, C values each."""

    @property
    def inside(self) -> Var:
        """True on tokens: [B, n]."""

    def scores(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states in fp32, for few outputs: weight [K, C], bias [K] -> [B, n, K]."""

    def linear(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Var:
        """A linear layer of the states in the graph's precision, sentence by sentence, without padding:
        weight [K, C], bias [K] -> [T, K]."""


@dataclass(frozen=True)
class ContextGraph:
    """How a kind of context becomes part of a graph.

    word_projection: its product with a word's features that no other word changes: weight [D, G], bias [G].
    states: its states from that product, which the graph reads as ``rows``.
    """

    word_projection: Callable[[Any, int], tuple[NDArray[np.float32], NDArray[np.float32]]]
    states: Callable[[Any, InputVars, Product], States]


CONTEXTS: dict[type[nn.Module], ContextGraph] = {
    SentenceLSTM: ContextGraph(lstm.word_projection, lstm.bilstm),
    SentenceConvolution: ContextGraph(convolution.word_projection, convolution.convolutions),
}


def word_projection(representation: Representation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a model's context reads of a word alone, for `structural_kd.word_projection`: [D, G] and [G].

    Raises:
        ValueError: the context has no graph.
    """
    return _graph_of(representation).word_projection(representation.context, representation.encoded_size)


def input_vars(representation: Representation) -> InputVars:
    """The inputs of a model's graph."""
    _, bias = word_projection(representation)
    return InputVars.of(len(bias), representation.encoded_size)


def context_states(representation: Representation, inputs: InputVars, product: Product) -> States:
    """The states of a model's context."""
    return _graph_of(representation).states(representation.context, inputs, product)


def _graph_of(representation: Representation) -> ContextGraph:
    if representation.context is None:
        raise ValueError("a model without a context (layers: 0) can not be exported; train it with layers: 1")
    return CONTEXTS[type(representation.context)]
