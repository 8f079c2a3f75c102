"""Words and sentences to context representations: what teachers and students share below their scores."""

import torch
from torch import Tensor, nn

from train.models.batch import Batch
from train.models.encoders import TokenEncoder
from train.models.recurrent import SentenceLSTM
from train.models.words import WordFeatures


class Representation(nn.Module):
    """(encoder ⊕) word vector ⊕ character features -> BiLSTM: [B, n, 2·hidden].

    Args:
        words: features of single words.
        encoded_size: width of the encoder features in each batch; 0 for a student.
        encoder: an encoder that is fine-tuned with the rest, instead of features from the batch.
    """

    def __init__(
        self,
        words: WordFeatures,
        *,
        encoded_size: int = 0,
        encoder: TokenEncoder | None = None,
        hidden_size: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.words = words
        self.encoder = encoder
        self.encoded_size = encoder.output_size if encoder is not None else encoded_size
        self.context = SentenceLSTM(
            self.encoded_size + words.output_size, hidden_size, layers=layers, dropout=dropout
        )
        self.output_size = self.context.output_size

    def forward(self, batch: Batch) -> Tensor:
        features = self.words(batch.words)  # [B, n, W]
        if self.encoded_size:
            features = torch.cat([self._encoded(batch).to(features.dtype), features], -1)  # [B, n, E + W]
        return self.context(features, batch.lengths)  # [B, n, 2H]

    def _encoded(self, batch: Batch) -> Tensor:
        if self.encoder is not None:
            return self.encoder(batch.sentences)
        if batch.encoded is None:
            raise ValueError("this model reads encoder features, and the batch has none")
        return batch.encoded
