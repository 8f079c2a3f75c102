"""Layers as ONNX nodes, built from torch modules' weights.

A graph built from weights, not traced, keeps ``sequence_lens`` and dynamic axes, and has its weights as
initialisers, which is what quantisation looks for.
"""

from collections.abc import Callable

import numpy as np
import spox.opset.ai.onnx.v21 as op
import torch
from numpy.typing import NDArray
from spox import Tensor, Var, argument
from spox._future import TypeWarningLevel, initializer, type_warning_level
from torch import nn

from train.models.representation import Representation


def weights(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A torch parameter as a float32 array of its own."""
    return tensor.detach().float().cpu().numpy().copy()


def inputs(size: int) -> tuple[Var, Var]:
    """The two inputs of every model: ``words`` [batch, tokens, size] float32, ``lengths`` [batch] int64."""
    words = argument(Tensor(np.float32, ("batch", "tokens", size)))
    return words, argument(Tensor(np.int64, ("batch",)))


def lstm_of(representation: Representation) -> nn.LSTM:
    """The BiLSTM under a model; a model that reads its encoder directly has none and no graph yet."""
    if representation.context is None:
        raise ValueError("a model without a BiLSTM (layers: 0) can not be exported; train it with layers: 1")
    return representation.context.lstm


def constant(values: NDArray) -> Var:
    """A weight of the model, stored once as an initialiser."""
    return initializer(values)


def axis(*numbers: int) -> Var:
    """Axes, shapes and other small integers that a node takes as a tensor."""
    return op.const(np.array(numbers, np.int64))


def bidirectional(lstm: nn.LSTM, words: Var, lengths: Var, *, time_major: bool) -> Var:
    """A batch-first bidirectional LSTM of any number of layers: [B, n, D] -> [B, n, 2H] or [n, B, 2H].

    States behind a sentence's end are zero, as after torch's packed sequences.
    """
    hidden = lstm.hidden_size
    lengths = op.cast(lengths, to=np.int32)
    states = op.transpose(words, perm=[1, 0, 2])  # [n, B, D]
    for layer in range(lstm.num_layers):
        output, _, _ = op.lstm(
            states,
            constant(np.stack([_gates(lstm, f"weight_ih_l{layer}{way}") for way in ("", "_reverse")])),
            constant(np.stack([_gates(lstm, f"weight_hh_l{layer}{way}") for way in ("", "_reverse")])),
            constant(np.stack([_biases(lstm, f"l{layer}{way}") for way in ("", "_reverse")])),
            lengths,
            hidden_size=hidden,
            direction="bidirectional",
        )  # [n, 2, B, H]
        last = layer == lstm.num_layers - 1
        perm = [2, 0, 1, 3] if last and not time_major else [0, 2, 1, 3]
        states = op.reshape(op.transpose(output, perm=perm), axis(0, 0, 2 * hidden))
    return states


def _gates(lstm: nn.LSTM, name: str) -> NDArray[np.float32]:
    """Torch's gates (input, forget, cell, output) as ONNX's (input, output, forget, cell)."""
    i, f, g, o = np.split(weights(getattr(lstm, name)), 4)
    return np.concatenate([i, o, f, g])


def _biases(lstm: nn.LSTM, name: str) -> NDArray[np.float32]:
    return np.concatenate([_gates(lstm, f"bias_ih_{name}"), _gates(lstm, f"bias_hh_{name}")])


def linear(x: Var, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> Var:
    """x Wᵀ + b with torch's weight [out, in]: [..., in] -> [..., out]."""
    product = op.matmul(x, constant(np.ascontiguousarray(weight.T)))
    return product if bias is None else op.add(product, constant(bias))


def size_of(x: Var, dimension: int) -> Var:
    """One dimension of a tensor, as a scalar int64."""
    return op.squeeze(op.shape(x, start=dimension, end=dimension + 1), axis(0))


def positions(count: Var) -> Var:
    """0, 1, …, count − 1: [count] int64."""
    return op.range(op.const(np.int64(0)), count, op.const(np.int64(1)))


def loop(count: Var, state: Var, step: Callable[[Var, Var], tuple[Var, Var]]) -> Var:
    """``state, output = step(i, state)`` for i = 0, …, count − 1: all outputs, stacked: [count, …]."""

    def body(i: Var, going: Var, state: Var) -> list[Var]:
        return [going, *step(op.squeeze(i, axis(0)), state)]

    # The last state's shape cannot be inferred, and nothing reads it.
    with type_warning_level(TypeWarningLevel.NONE):
        _, outputs = op.loop(count, v_initial=[state], body=body)
    return outputs
