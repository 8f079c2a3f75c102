"""The bidirectional LSTM under every teacher and student."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from train.models.layers import locked_dropout
from train.structs.base import token_mask


class SentenceLSTM(nn.Module):
    """Word representations to context representations: [B, n, D] -> [B, n, 2·hidden].

    Dropout on the input and the output drops the same features at every position of a sentence
    (Gal and Ghahramani 2016).
    """

    def __init__(self, input_size: int, hidden_size: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            input_size,
            hidden_size,
            num_layers=layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = dropout
        self.input_size = input_size
        self.output_size = 2 * hidden_size

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        words = locked_dropout(words, self.dropout, self.training)  # [B, n, D]
        states = self._packed(words, lengths) if words.is_cuda else self._padded(words, lengths)
        return locked_dropout(states, self.dropout, self.training)  # [B, n, 2H]

    def _packed(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])[0]

    def _padded(self, words: Tensor, lengths: Tensor) -> Tensor:
        # On a CPU a packed batch is a matrix product a position; a padded one is a single fused kernel that
        # takes a quarter less time, forward and backward. Padding must not reach the backward direction, so
        # each sentence is reversed within its own length and both directions run forward.
        inside = token_mask(lengths, words.shape[1])[..., None]  # [B, n, 1]
        mirror = _mirrored(lengths, words.shape[1])  # [B, n]
        start = words.new_zeros(1, words.shape[0], self.lstm.hidden_size)
        for layer in range(self.lstm.num_layers):
            if layer:
                words = functional.dropout(words, self.lstm.dropout, self.training)
            directions = []
            for suffix in ("", "_reverse"):
                read = words if not suffix else _take(words, mirror)
                weights = [getattr(self.lstm, f"{name}_l{layer}{suffix}") for name in _WEIGHTS]
                states, *_ = torch.lstm(read, (start,) * 2, weights, True, 1, 0.0, self.training, False, True)
                directions.append(states if not suffix else _take(states, mirror))
            words = torch.cat(directions, -1) * inside  # [B, n, 2H]
        return words


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _mirrored(lengths: Tensor, tokens: int) -> Tensor:
    """Positions that turn each sentence around and leave its padding in place: [B, n]."""
    position = torch.arange(tokens, device=lengths.device)
    return torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)


def _take(x: Tensor, positions: Tensor) -> Tensor:
    """x [B, n, D] at positions [B, n]."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[2]))
