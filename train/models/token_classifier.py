"""Hugging Face token-classification models as teachers, used as they are.

Such a model gives each word a softmax over the labels of its own scheme. Valid sequences of any scheme and
sets of entities correspond one to one, and so do sets of entities and valid BIOES sequences. So the product
of the softmaxes, given that the sequence is valid, is a linear chain over BIOES, exactly:

| scheme | score of `B-X`, `S-X` | score of `I-X`, `E-X` | besides BIOES's constraints |
|---|---|---|---|
| `bioes` | `B-X`, `S-X` | `I-X`, `E-X` | |
| `iob2` | `B-X` | `I-X` | |
| `iob1` | `B-X` directly behind an entity of type X, else `I-X` | `I-X` | |
| `io` | `X` | `X` | no entity directly behind one of its type: a run of X is one entity |
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from structural_kd.labels import bioes_labels, split_tag
from structural_kd.wordpieces import load_tokenizer, words_to_pieces
from train.models.batch import Batch, pad_rows
from train.models.encoder_places import find_encoder
from train.models.encoders import longest_window
from train.models.taggers import constraint_scores
from train.structs import FORBIDDEN, LinearChain

Scheme = Literal["iob1", "iob2", "bioes", "io"]

_PREFIXES: dict[Scheme, str] = {"iob1": "BI", "iob2": "BI", "bioes": "BIES"}
_SYNONYMS = {"L": "E", "U": "S", "M": "I"}
"""BILOU's last and unit, BMES's middle."""


class SourceLabel(NamedTuple):
    """A label of the model: O, or a prefix (empty for a bare name) and an entity type."""

    prefix: str
    type: str | None  # None counts as O


@dataclass(frozen=True)
class NoRepresentation:
    """What a model that reads the sentences themselves takes from a run: nothing."""

    words: None = None
    encoder: None = None
    encoded_size: int = 0


class TokenClassifier(nn.Module):
    """A token-classification model as a chain over BIOES labels; see `load_token_classifier`.

    Args:
        model: scores [W, p, M] of M labels for windows of pieces.
        sources: what each of the M labels means.
        labels: the BIOES labels of the chain.
        max_pieces: longest window, special pieces included.
        digest: SHA-256 over the files it was read from.
    """

    representation = NoRepresentation()
    transitions: Tensor  # [L, L]
    start: Tensor  # [L]
    end: Tensor  # [L]
    behind: Tensor  # [L, L] a label that begins an entity directly behind one of its type
    opens: Tensor  # [L] a label that begins an entity
    inside_sources: Tensor  # [L, M] 0 for the model's labels that a BIOES label reads, else FORBIDDEN
    begin_sources: Tensor  # [L, M] the same for the B- labels of iob1

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        sources: Sequence[SourceLabel],
        labels: Sequence[str],
        scheme: Scheme,
        *,
        max_pieces: int,
        digest: str,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.labels = list(labels)
        self.scheme = scheme
        self.max_pieces = max_pieces
        self.digest = digest
        parts = [split_tag(label, place, "bioes") for place, label in enumerate(self.labels)]
        opens = torch.tensor([prefix in "BS" for prefix, _ in parts])
        closes = torch.tensor([prefix in "ES" for prefix, _ in parts])
        same = torch.tensor([[one == other for _, other in parts] for _, one in parts])
        behind = closes[:, None] & opens & same  # [L, L]
        transitions, start, end = constraint_scores(tuple(self.labels))
        if scheme == "io":
            transitions = torch.where(behind, FORBIDDEN, transitions)
        for name, tensor in (
            ("transitions", transitions.clone()),
            ("start", start.clone()),
            ("end", end.clone()),
            ("behind", behind),
            ("opens", opens),
            ("inside_sources", _reads(parts, sources, _READS[scheme])),
            ("begin_sources", _reads(parts, sources, dict.fromkeys("BIES", "B"))),
        ):
            self.register_buffer(name, tensor, persistent=False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> LinearChain:
        """The chain; exp(log_partition) is the model's own probability that its labels are valid."""
        scores = self._scores(batch.sentences)  # [B, n, M]
        emissions = _sums(scores, self.inside_sources)  # [B, n, L]
        transitions = self.transitions
        if self.scheme == "iob1":
            # Behind the first token a beginning is scored where it is known what it follows, in the table.
            begins = _sums(scores, self.begin_sources)[:, 1:, None]  # [B, n-1, 1, L]
            follows = torch.where(self.behind, begins, emissions[:, 1:, None])  # [B, n-1, L, L]
            transitions = transitions + torch.where(self.opens, follows, 0.0)
            emissions = torch.cat([emissions[:, :1], emissions[:, 1:].masked_fill(self.opens, 0.0)], 1)
        return LinearChain(emissions, transitions, self.start, self.end, batch.lengths)

    def decode(self, distribution: LinearChain) -> Tensor:
        """Label ids [B, n] of the most probable valid sequence."""
        return distribution.argmax()

    def _scores(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Log-probabilities [B, n, M] of the model's labels at the first piece of each word."""
        device = self.transitions.device
        pieces = words_to_pieces(self.tokenizer, sentences, self.max_pieces)
        ids = torch.from_numpy(pieces.ids).to(device)  # [W, p]
        mask = torch.from_numpy(pieces.mask).to(device)  # [W, p]
        scores = self.model(input_ids=ids, attention_mask=mask).logits  # [W, p, M]
        window = torch.from_numpy(pieces.window).to(device)  # [T]
        first = torch.from_numpy(pieces.first).to(device)  # [T]
        words = scores[window, first].float().log_softmax(-1)  # [T, M]
        return pad_rows(words.split(pieces.lengths))


_READS: dict[Scheme, dict[str, str]] = {
    "bioes": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "iob2": {"B": "B", "S": "B", "I": "I", "E": "I"},
    "iob1": dict.fromkeys("BIES", "I"),
    "io": dict.fromkeys("BIES", ""),
}
"""Which prefix of the model's scheme each prefix of BIOES reads; in `io` any."""


def _reads(
    parts: Sequence[tuple[str, str]], sources: Sequence[SourceLabel], prefixes: Mapping[str, str]
) -> Tensor:
    """0 where BIOES label l reads the model's label m, FORBIDDEN elsewhere: [L, M]."""

    def reads(prefix: str, label: str, source: SourceLabel) -> bool:
        if prefix == "O" or source.type is None:
            return prefix == "O" and source.type is None
        return source.type == label and prefixes[prefix] in ("", source.prefix)

    read = [[reads(prefix, label, source) for source in sources] for prefix, label in parts]
    return torch.where(torch.tensor(read), 0.0, FORBIDDEN)


def _sums(scores: Tensor, sources: Tensor) -> Tensor:
    """log Σ_m exp over the labels m that each label reads: [B, n, M], [L, M] -> [B, n, L]."""
    return (scores[:, :, None] + sources).logsumexp(-1)


# Loading ---------------------------------------------------------------------------------------------


def load_token_classifier(
    name: str,
    labels: Sequence[str] | None,
    *,
    scheme: str = "auto",
    types: Mapping[str, str | None] | None = None,
    device: str | torch.device = "cpu",
) -> TokenClassifier:
    """Loads a token-classification model: a local folder, the Hugging Face cache, the hub, in this order.

    A word's scores are those of its first piece. A sentence longer than the model's window is read in
    several, cut between words. Only safetensors are read, and no code of the model's.

    Args:
        labels: the task's BIOES labels; None takes the model's entity types, after ``types``.
        scheme: of the model's labels: iob1, iob2, bioes (also BILOU and BMES), io, or auto: bioes if a label
            begins an entity of one token or ends one, iob2 if a label begins one, else io. iob1 looks like
            iob2, so it has to be said.
        types: the model's entity types under other names, or None to count one as O. It acts on single
            labels, before sequences are looked at: the probabilities of labels that become one add up.

    A type that the task has and the model lacks is never predicted, and is said in a warning.

    Raises:
        EncoderNotFoundError: there is no such model, or it lacks a file; says what was tried.
        ValueError: it is no token classifier, its labels are no entity tags of the scheme, or it has types
            that the task lacks; says which, and what to set.

    >>> model = load_token_classifier("dslim/bert-base-NER", None, types={"MISC": None})  # doctest: +SKIP
    >>> model.labels[:5]  # doctest: +SKIP
    ['O', 'B-LOC', 'I-LOC', 'E-LOC', 'S-LOC']
    """
    place = find_encoder(name, kinds=("folder", "cache", "hub"))
    folder = place.path
    names = _label_names(name, folder)
    chosen, sources = read_labels(name, names, scheme, types or {})
    found = {source.type for source in sources if source.type is not None}
    if labels is None:
        labels = bioes_labels(found)
    else:
        _check_types(name, found, {label[2:] for label in labels if label != "O"})
    model = _load(name, folder)
    classifier = TokenClassifier(
        model,
        load_tokenizer(folder / "tokenizer.json"),
        sources,
        labels,
        chosen,
        max_pieces=longest_window(model.base_model),
        digest=place.digest,
    )
    return classifier.to(device).eval()


def _label_names(name: str, folder: Path) -> list[str]:
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    architectures = config.architectures or []
    if architectures and not any(kind.endswith("ForTokenClassification") for kind in architectures):
        raise ValueError(
            f"{name} is a {', '.join(architectures)}, not a token-classification model, so its labels would "
            "be random; fine-tune it as the encoder of a teacher, or name a model with entity labels"
        )
    names = [str(config.id2label[place]) for place in range(len(config.id2label))]
    if all(re.fullmatch(r"LABEL_\d+", label) for label in names):
        raise ValueError(
            f"{name} does not name its labels ({', '.join(names[:3])}, …); write what they are as id2label "
            f'in {folder / "config.json"}: {{"0": "O", "1": "B-PER", …}}, in the order of its training'
        )
    return names


def _load(name: str, folder: Path) -> Any:
    model, loading = transformers.AutoModelForTokenClassification.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if loading["missing_keys"]:
        raise ValueError(
            f"{name} lacks the weights {', '.join(sorted(loading['missing_keys']))}, which would be random; "
            "name a folder that save_pretrained of a fine-tuned token-classification model has written"
        )
    return model


def read_labels(
    name: str, names: Sequence[str], scheme: str, types: Mapping[str, str | None]
) -> tuple[Scheme, list[SourceLabel]]:
    """The scheme of a model's labels, and what each of them means under `types`.

    >>> read_labels("a model", ["O", "B-PERSON", "I-PERSON"], "auto", {"PERSON": "PER"})[1][1]
    SourceLabel(prefix='B', type='PER')
    """
    parts = [_split(label) for label in names]
    prefixes = {prefix for prefix, _ in parts}
    if scheme == "auto":
        scheme = "bioes" if prefixes & {"E", "S"} else "iob2" if "B" in prefixes else "io"
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme: expected auto, {', '.join(get_args(Scheme))}, found {scheme!r}")
    chosen: Scheme = scheme  # type: ignore[assignment]
    known = {label for prefix, label in parts if prefix != "O"}
    if unknown := sorted(types.keys() - known):
        raise ValueError(
            f"types: {name} has no type {', '.join(unknown)}; its types are {', '.join(sorted(known))}"
        )
    sources = []
    for label, (prefix, kind) in zip(names, parts, strict=True):
        mapped = None if prefix == "O" else types.get(kind, kind)
        if mapped is not None and chosen != "io" and prefix not in tuple(_PREFIXES[chosen]):
            expected = ", ".join(f"{letter}-TYPE" for letter in _PREFIXES[chosen])
            raise ValueError(
                f"{name} has the label {label}, which is none of the scheme {chosen} (O, {expected}); set "
                f"another scheme, or count it as O with types: {{{kind}: null}}"
            )
        sources.append(SourceLabel(prefix, mapped))
    if not any(source.type for source in sources):
        raise ValueError(f"{name} has no entity type left: its labels are {', '.join(names)}")
    return chosen, sources


def _split(label: str) -> tuple[str, str]:
    if label == "O":
        return "O", ""
    tag = re.fullmatch(r"([BIESLUM])[-_](.+)", label)
    return (_SYNONYMS.get(tag[1], tag[1]), tag[2]) if tag else ("", label)


def _check_types(name: str, found: set[str], wanted: set[str]) -> None:
    if extra := sorted(found - wanted):
        setting = ", ".join(f"{label}: null" for label in extra)
        raise ValueError(
            f"{name} has the types {', '.join(extra)}, and the task has {', '.join(sorted(wanted))} only; "
            f"say which of these each one is, or null to count it as O:\n  types: {{{setting}}}"
        )
    if absent := sorted(wanted - found):
        warnings.warn(f"{name} never predicts {', '.join(absent)}: it has no such types", stacklevel=3)
