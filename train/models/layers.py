"""Layers that teachers and students share."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Perceptron(nn.Linear):
    """Linear, leaky ReLU and `locked_dropout`: [B, n, D] -> [B, n, size]."""

    def __init__(self, input_size: int, size: int, dropout: float) -> None:
        super().__init__(input_size, size)
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        return locked_dropout(functional.leaky_relu(super().forward(input), 0.1), self.dropout, self.training)


def locked_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout with one mask a sentence, shared by its positions: [B, n, D] -> [B, n, D]."""
    if not training or rate == 0:
        return x
    keep = torch.empty(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype).bernoulli_(1 - rate)
    return x * (keep / (1 - rate))
