"""Parts of graphs: weights as initialisers, small shapes and numbers, a linear layer, a loop.

A graph is built from weights, not traced: its axes stay dynamic, and it has no other operators than these.
"""

from collections.abc import Callable, Sequence

import numpy as np
import spox.opset.ai.onnx.v21 as op
import torch
from numpy.typing import NDArray
from spox import Var
from spox._future import TypeWarningLevel, initializer, type_warning_level


def weights(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A torch parameter as a float32 array of its own."""
    return tensor.detach().float().cpu().numpy().copy()


def constant(values: NDArray) -> Var:
    """A weight of the model, stored once as an initialiser."""
    return initializer(values)


def axis(*numbers: int) -> Var:
    """Axes, shapes and other small integers that a node takes as a tensor."""
    return op.const(np.array(numbers, np.int64))


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


def reversed_rows(x: Var) -> Var:
    """[n, …] from the last row to the first."""
    return op.slice(x, axis(-1), axis(np.iinfo(np.int64).min), axis(0), axis(-1))


def loop(
    count: Var,
    states: Sequence[Var],
    step: Callable[..., tuple[list[Var], list[Var]]],
    *,
    reads: Sequence[Var] = (),
) -> list[Var]:
    """``states, outputs = step(i, *states)`` for i = 0, …, count − 1: each output, stacked: [count, …].

    A state may have another size after each step; outputs have the same at all of them.

    Args:
        reads: tables that only ``step`` reads, beside its arguments. One that is not named here is computed
            inside, anew at every step.
    """
    # A table with a use outside is computed outside; this use leaves the count as it is.
    for read in reads:
        size = op.size(read)
        count = op.sub(op.add(count, size), size)

    def body(i: Var, going: Var, *states: Var) -> list[Var]:
        after, outputs = step(op.squeeze(i, axis(0)), *states)
        return [op.const(True), *after, *outputs]

    # The last states' shapes cannot be inferred, and nothing reads them.
    with type_warning_level(TypeWarningLevel.NONE):
        results = op.loop(count, v_initial=list(states), body=body)
    return list(results[len(states) :])
