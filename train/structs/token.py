"""Independent labels, one softmax a token (the MaxEnt model of the paper)."""

import torch
from torch import Tensor

from train.structs.base import Best, StructuredDistribution, check_lengths, token_mask
from train.structs.reductions import best_combinations, check_k, without_forbidden


class TokenSoftmax(StructuredDistribution):
    """p(y) = Π_i softmax(scores_i)[y_i]. Inference costs O(n L).

    Args:
        scores: [B, n, L] label scores.
        lengths: [B] tokens of each sentence.

    Structures are label ids [B, n] (anything in the padding); marginals are [B, n, L].

    >>> TokenSoftmax(torch.zeros(1, 3, 5), torch.tensor([3])).log_count().exp().round()
    tensor([125.])
    """

    def __init__(self, scores: Tensor, lengths: Tensor) -> None:
        if scores.dim() != 3:
            raise ValueError(f"scores must be [sentences, tokens, labels], got {tuple(scores.shape)}")
        self.scores = scores.float() if scores.dtype != torch.float64 else scores  # [B, n, L]
        self.lengths = check_lengths(lengths, scores.shape[0], scores.shape[1])
        self.mask = token_mask(self.lengths, scores.shape[1])  # [B, n]

    def _log_partition(self) -> Tensor:
        return torch.where(self.mask, self.scores.logsumexp(-1), 0.0).sum(1)  # [B, n] -> [B]

    def argmax(self) -> Tensor:
        """[B, n] label ids, 0 in the padding."""
        return torch.where(self.mask, self.scores.argmax(-1), 0)

    def topk(self, k: int) -> Best:
        """k batches of label ids [B, n], 0 in the padding."""
        scores = without_forbidden(self.scores.detach())  # [B, n, L]
        labels, totals = best_combinations(scores, self.mask, check_k(k))  # [B, k, n], [B, k]
        return Best(labels.unbind(1), totals)

    def score(self, structure: Tensor) -> Tensor:
        labels = torch.where(self.mask, structure, 0)  # [B, n]
        chosen = self.scores.gather(-1, labels[..., None]).squeeze(-1)  # [B, n]
        return torch.where(self.mask, chosen, 0.0).sum(1)
