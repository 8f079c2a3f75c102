"""Words and sentences to context representations: what teachers and students share below their scores."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from train.models.batch import Batch
from train.models.convolution import SentenceConvolution
from train.models.encoders import TokenEncoder
from train.models.layers import locked_dropout
from train.models.lstm import SentenceLSTM
from train.models.words import WordFeatures

ContextKind = Literal["lstm", "convolution"]


class Representation(nn.Module):
    """(encoder ⊕) (word vector ⊕ character features) -> context: [B, n, C], C = 2·hidden of a BiLSTM,
    hidden of convolutions.

    A student reads words; a teacher reads an encoder too, or the encoder alone, as one for several languages
    must, whose words share no vectors. Without layers the features themselves are the representation.

    Args:
        words: features of single words; None to read the encoder only.
        encoded_size: width of the encoder features in each batch; 0 for a student.
        encoder: an encoder that is fine-tuned with the rest, instead of features from the batch.
        context: ``lstm`` or ``convolution``.
        layers: of the BiLSTM; 0 for none, so that scores are a linear function of the features.
        dilations: of the convolutions.
        dropout: rate before and after the context, or on the features where there is none.

    Raises:
        ValueError: neither words nor an encoder is read.
    """

    def __init__(
        self,
        words: WordFeatures | None,
        *,
        encoded_size: int = 0,
        encoder: TokenEncoder | None = None,
        hidden_size: int,
        context: ContextKind = "lstm",
        layers: int = 1,
        dilations: Sequence[int] = (),
        dropout: float,
    ) -> None:
        super().__init__()
        self.words = words
        self.encoder = encoder
        self.encoded_size = encoder.output_size if encoder is not None else encoded_size
        self.dropout = dropout
        features = self.encoded_size + (words.output_size if words is not None else 0)
        if not features:
            raise ValueError("the model reads neither words nor an encoder; it has to read one of them")
        self.context: SentenceLSTM | SentenceConvolution | None = None
        if context == "convolution":
            self.context = SentenceConvolution(features, hidden_size, dilations=dilations, dropout=dropout)
        elif layers:
            self.context = SentenceLSTM(features, hidden_size, layers=layers, dropout=dropout)
        self.output_size = self.context.output_size if self.context is not None else features

    def forward(self, batch: Batch) -> Tensor:
        read = []
        if self.encoded_size:
            read.append(self._encoded(batch).float())  # [B, n, E]
        if self.words is not None:
            read.append(self.words(batch.words))  # [B, n, W]
        features = torch.cat(read, -1)  # [B, n, E + W]
        if self.context is None:
            return locked_dropout(features, self.dropout, self.training)
        return self.context(features, batch.lengths)  # [B, n, C]

    def _encoded(self, batch: Batch) -> Tensor:
        if self.encoder is not None:
            return self.encoder(batch.sentences)
        if batch.encoded is None:
            raise ValueError("this model reads encoder features, and the batch has none")
        return batch.encoded
