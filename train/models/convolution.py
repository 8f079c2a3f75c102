"""Convolutions over a sentence's words: a context without steps, for students."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.models.layers import locked_dropout
from train.structs.base import token_mask


class SentenceConvolution(nn.Module):
    """Word representations to context representations: [B, n, D] -> [B, n, hidden].

    A window of three words, then residual convolutions of width 3 with dilations, which see 1 + Σ 2d words to
    each side in all (Strubell et al. 2017):

        x⁰ᵢ = norm(relu(W [wᵢ₋₁, wᵢ, wᵢ₊₁] + b)),  xˡᵢ = norm(xᵢ + relu(W [xᵢ₋d, xᵢ, xᵢ₊d] + b))

    Beyond a sentence's ends every vector is zero. Dropout drops the same features at every position of a
    sentence.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, dilations: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.window = nn.Linear(3 * input_size, hidden_size)
        self.window_norm = nn.LayerNorm(hidden_size)
        self.convolutions = nn.ModuleList(nn.Linear(3 * hidden_size, hidden_size) for _ in dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in dilations)
        self.dilations = tuple(dilations)
        self.dropout = dropout
        self.input_size = input_size
        self.output_size = hidden_size

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        inside = token_mask(lengths, words.shape[1])[..., None]  # [B, n, 1]
        words = locked_dropout(words, self.dropout, self.training) * inside  # [B, n, D]
        states = self.window_norm(torch.relu(self.window(windows(words, 1)))) * inside  # [B, n, H]
        for convolution, norm, dilation in self.layers():
            update = torch.relu(convolution(windows(states, dilation)))  # [B, n, H]
            update = locked_dropout(update, self.dropout / 2, self.training)
            states = norm(states + update) * inside  # [B, n, H]
        return locked_dropout(states, self.dropout, self.training)

    def layers(self) -> Iterator[tuple[nn.Linear, nn.LayerNorm, int]]:
        """The residual convolutions: weights, norm and dilation of each."""
        for convolution, norm, dilation in zip(self.convolutions, self.norms, self.dilations, strict=True):
            assert isinstance(convolution, nn.Linear)
            assert isinstance(norm, nn.LayerNorm)
            yield convolution, norm, dilation


def windows(x: Tensor, dilation: int) -> Tensor:
    """The vectors ``dilation`` before, at and after each position, zeros outside: [B, n, D] -> [B, n, 3D]."""
    padded = functional.pad(x, (0, 0, dilation, dilation))  # [B, n + 2·dilation, D]
    return torch.cat([padded[:, : x.shape[1]], x, padded[:, 2 * dilation :]], -1)
