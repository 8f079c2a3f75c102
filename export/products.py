"""Products of BiLSTM states with weights, in each precision that a graph can have.

States lie within (−1, 1): they are an output gate times a hyperbolic tangent. So int8 needs no statistics of
the data and none of the batch: one fixed scale quantises every state, and a sentence's states do not depend
on its batch, as they would with dynamic quantisation.
"""

from typing import Protocol

import numpy as np
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from spox import Var

from export.layers import constant

STATE_SCALE = np.array(1 / 127, np.float32)
STATE_ZERO = np.array(128, np.uint8)

WEIGHT_LEVELS = 64
"""Largest integer of a weight. Processors without VNNI add two products of a byte and a weight in 16 bits
before anything else: 2 · 255 · 64 is the most that fits. With 127 they would saturate in silence."""


class Product(Protocol):
    """``states Wᵀ + plus``: states [m, in], torch's weight [out, in], plus [out] or [m, out] -> [m, out]."""

    def __call__(self, states: Var, weight: NDArray[np.float32], plus: Var) -> Var: ...


def fp32(states: Var, weight: NDArray[np.float32], plus: Var) -> Var:
    return op.gemm(states, constant(np.ascontiguousarray(weight.T)), plus)


def int8(states: Var, weight: NDArray[np.float32], plus: Var) -> Var:
    """With weights in 8 bits, scaled for each output, and states in 8 bits of a fixed scale."""
    scale = np.maximum(np.abs(weight).max(1), np.float32(1e-12)) / np.float32(WEIGHT_LEVELS)  # [out]
    quantised = np.rint(weight / scale[:, None]).astype(np.int8)  # [out, in]
    zero = constant(STATE_ZERO)
    read = op.quantize_linear(states, constant(STATE_SCALE), zero)  # [m, in] uint8
    sums = op.matmul_integer(read, constant(np.ascontiguousarray(quantised.T)), zero)  # [m, out] int32
    return op.add(op.mul(op.cast(sums, to=np.float32), constant(scale * STATE_SCALE)), plus)


PRODUCTS: dict[str, Product] = {"fp32": fp32, "int8": int8}
