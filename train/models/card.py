"""What a trained model is, beside its weights: enough to build it again for scoring, resuming or export."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_model, save_model
from torch import nn

from structural_kd.files import whole, write_whole
from structural_kd.strict_json import validated
from train.model_kinds import NetworkKind, TaskName
from train.models.encoders import TokenEncoder
from train.models.parsers import BiaffineParser, SecondOrderParser, SequenceLabellingParser
from train.models.representation import ContextKind, Representation
from train.models.span_tagger import SpanTagger
from train.models.taggers import CRFTagger, SoftmaxTagger
from train.models.words import WordFeatures, WordTypes
from train.structs import HeadSelection, MatrixTree, ProjectiveTree


@dataclass(frozen=True)
class EncoderUse:
    """How a teacher reads its encoder: by name, the mean of these layers, frozen or fine-tuned."""

    name: str
    layers: tuple[int, ...]
    size: int
    finetuned: bool


@dataclass(frozen=True)
class ModelCard:
    """The architecture and the label set of one teacher or student.

    ``labels`` are BIOES tags for a tagger and relations for a parser; ``relative_labels`` the closed set
    of a sequence labeller. Sizes are in units; no ``layers`` means no BiLSTM, ``dilations`` are the
    convolutions'. A model that does not read words reads its encoder alone.
    """

    task: TaskName
    kind: NetworkKind
    role: Literal["teacher", "student"]
    language: str
    labels: tuple[str, ...]
    relative_labels: tuple[tuple[int, str], ...] = ()
    encoder: EncoderUse | None = None
    reads_words: bool = True
    hidden_size: int = 256
    context: ContextKind = "lstm"
    layers: int = 1
    dilations: tuple[int, ...] = ()
    dropout: float = 0.33
    word_dropout: float = 0.0
    character_dim: int = 25
    character_features: int = 50
    arc_size: int = 128
    arc_distance: int = 0
    relation_size: int = 128
    second_order_size: int = 64


def build_model(card: ModelCard, types: WordTypes, encoder: TokenEncoder | None = None) -> nn.Module:
    """The untrained model a card describes, over the run's word types.

    Args:
        encoder: needed only where the card says the encoder is fine-tuned.

    Raises:
        ValueError: the encoder is missing, or the card reads neither words nor an encoder.
    """
    finetuned = card.encoder is not None and card.encoder.finetuned
    if finetuned and encoder is None:
        raise ValueError(f"the card fine-tunes {card.encoder.name}, and no encoder was given")  # type: ignore[union-attr]
    words = None
    if card.reads_words:
        words = WordFeatures(
            types,
            character_dim=card.character_dim,
            character_features=card.character_features,
            word_dropout=card.word_dropout,
        )
    representation = Representation(
        words,
        encoded_size=card.encoder.size if card.encoder else 0,
        encoder=encoder if finetuned else None,
        hidden_size=card.hidden_size,
        context=card.context,
        layers=card.layers,
        dilations=card.dilations,
        dropout=card.dropout,
    )
    return _BUILDERS[card.kind](card, representation)


_Builder = Callable[[ModelCard, Representation], nn.Module]


def _parser(parser: type[nn.Module], *more: str, **fixed: Any) -> _Builder:
    """A parser with the sizes of its card, more of them by name."""
    sizes = ("arc_size", "arc_distance", "relation_size", "dropout", *more)
    return lambda card, representation: parser(
        representation, card.labels, **{size: getattr(card, size) for size in sizes}, **fixed
    )


_BUILDERS: dict[NetworkKind, _Builder] = {
    "crf": lambda card, representation: CRFTagger(representation, card.labels),
    "softmax": lambda card, representation: SoftmaxTagger(representation, card.labels),
    "span": lambda card, representation: SpanTagger(
        representation, card.labels, size=card.arc_size, dropout=card.dropout
    ),
    "biaffine": _parser(BiaffineParser, family=HeadSelection),
    "matrix_tree": _parser(BiaffineParser, family=MatrixTree),
    "projective_tree": _parser(BiaffineParser, family=ProjectiveTree),
    "second_order": _parser(SecondOrderParser, "second_order_size"),
    "labeller": lambda card, representation: SequenceLabellingParser(
        representation, card.labels, card.relative_labels
    ),
}


def save_trained(folder: Path, model: nn.Module, card: ModelCard, **about: Any) -> None:
    """Write ``model.safetensors`` and ``model.json``, with ``about`` (scores, seed …) beside the card."""
    with whole(folder / "model.safetensors") as part:
        save_model(model, str(part))
    # The card comes last: a folder with a card is a finished model.
    content = json.dumps({"card": asdict(card), **about}, ensure_ascii=False, indent=1)
    write_whole(folder / "model.json", content + "\n")


def read_card(folder: Path) -> tuple[ModelCard, dict[str, Any]]:
    """The card of a trained model, and what was written about it.

    Raises:
        ValueError: a field of the card is wrong; names the file and the field.
    """
    file = folder / "model.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    try:
        return validated(ModelCard, json.dumps(about.pop("card"))), about
    except ValueError as error:
        raise ValueError(f"{file}: card.{error}") from None


def load_trained(folder: Path, types: WordTypes, encoder: TokenEncoder | None = None) -> nn.Module:
    """A trained model in evaluation mode."""
    card, _ = read_card(folder)
    model = build_model(card, types, encoder)
    load_model(model, str(folder / "model.safetensors"))
    return model.eval()
