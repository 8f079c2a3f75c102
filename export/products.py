"""Products of a context's states with weights, in each precision that a graph can have.

int8 takes nothing from the batch: states are quantised by a fixed scale, so that a sentence's answer does not
depend on the sentences beside it, as it would with dynamic quantisation. What bounds the states gives the
scale: those of a BiLSTM are an output gate times a hyperbolic tangent, so within (−1, 1); normalised ones lie
within what their norm's weights allow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Var

from export.layers import constant

STATE_LEVELS = 127
STATE_ZERO = np.array(128, np.uint8)

WEIGHT_LEVELS = 64
"""Largest integer of a weight. Processors without VNNI add two products of a byte and a weight in 16 bits
before anything else: 2 · 255 · 64 is the most that fits. With 127 they would saturate in silence."""


@dataclass(frozen=True)
class Product:
    """``states Wᵀ + plus``: states [m, in], torch's weight [out, in], plus [out] or [m, out] -> [m, out].

    In two steps, so that a table of states is read once, however often its rows are used.

    read: states [m, in] within ± ``largest`` as factors of products; what is beyond is cut off.
    multiply: the product of what was read.
    zero: a state of zero that was read.
    """

    read: Callable[[Var, float], Var]
    multiply: Callable[[Var, NDArray[np.float32], Var, float], Var]
    zero: NDArray

    def __call__(self, states: Var, weight: NDArray[np.float32], plus: Var, *, largest: float = 1.0) -> Var:
        return self.multiply(self.read(states, largest), weight, plus, largest)


def _multiply(states: Var, weight: NDArray[np.float32], plus: Var, largest: float) -> Var:
    return op.gemm(states, constant(np.ascontiguousarray(weight.T)), plus)


def _quantised(states: Var, largest: float) -> Var:
    """[m, in] uint8, 0 at 128."""
    return op.quantize_linear(states, constant(_state_scale(largest)), constant(STATE_ZERO))


def _multiply_integers(read: Var, weight: NDArray[np.float32], plus: Var, largest: float) -> Var:
    """With weights in 8 bits, scaled for each output."""
    scale = np.maximum(np.abs(weight).max(1), np.float32(1e-12)) / np.float32(WEIGHT_LEVELS)  # [out]
    quantised = np.rint(weight / scale[:, None]).astype(np.int8)  # [out, in]
    factors = constant(np.ascontiguousarray(quantised.T))
    sums = op.matmul_integer(read, factors, constant(STATE_ZERO))  # [m, out] int32
    return op.add(op.mul(op.cast(sums, to=np.float32), constant(scale * _state_scale(largest))), plus)


def _state_scale(largest: float) -> NDArray[np.float32]:
    return np.array(largest / STATE_LEVELS, np.float32)


PRODUCTS: dict[str, Product] = {
    "fp32": Product(lambda states, largest: states, _multiply, np.array(0, np.float32)),
    "int8": Product(_quantised, _multiply_integers, STATE_ZERO),
}
