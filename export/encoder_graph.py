"""A pretrained encoder as an ONNX graph, exported by torch."""

import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn


class _LayerMean(nn.Module):
    """Piece ids and mask [W, p] to the mean of some hidden states [W, p, D]."""

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.layers = tuple(layers)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack([states[layer] for layer in self.layers]).mean(0)


def encoder_graph(model: nn.Module, layers: Sequence[int]) -> onnx.ModelProto:
    """A Hugging Face encoder as a graph with dynamic windows and pieces.

    Inputs: ``ids`` and ``mask`` [windows, pieces] int64. Output: ``hidden`` [windows, pieces, D] float32,
    the mean of ``layers`` of the hidden states.
    """
    ids = torch.arange(2, 16).reshape(2, 7)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    windows, pieces = torch.export.Dim("windows"), torch.export.Dim("pieces")
    dynamic = {0: windows, 1: pieces}
    wrapped = _LayerMean(model, layers).eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # names every optional package it does without
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecated calls
        program = torch.onnx.export(
            wrapped,
            (ids, mask),
            input_names=["ids", "mask"],
            output_names=["hidden"],
            dynamic_shapes=(dynamic, dynamic),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto
