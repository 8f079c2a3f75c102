"""Small models with random weights, and the bundles and run folders made of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from export.model import TrainedModel, write_bundle
from structural_kd.labels import bioes_labels
from structural_kd.words import SubwordVectors
from train.models.card import ModelCard, build_model, save_trained
from train.models.words import WordTypes

WORDS = [f"{a}{b}" for a in ("sol", "Mar", "2", "é", "-") for b in ("a", "e", "ix", "ü", "")]
ALPHABET = sorted({character for word in WORDS for character in word})
RELATIONS = ("det", "nsubj", "obj", "root")
RELATIVE = tuple((offset, relation) for offset in (-3, -2, -1, 1, 2) for relation in RELATIONS[:3])
KINDS = ("crf", "softmax", "biaffine", "labeller")
CONTEXTS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm, two layers": {"layers": 2},
    "convolution": {"context": "convolution", "dilations": (1, 3, 1), "arc_distance": 4},
}
"""Settings of a card."""


def vectors() -> SubwordVectors:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((len(WORDS), 6), dtype=np.float32)
    return SubwordVectors(WORDS, rows, rng.standard_normal((50, 6), dtype=np.float32), 2, 3)


def types() -> WordTypes:
    return WordTypes.build(WORDS, vectors(), ALPHABET)


def card(kind: str, **changes: Any) -> ModelCard:
    tagger = kind in ("crf", "softmax")
    plain = ModelCard(
        task="ner" if tagger else "parse",
        kind=kind,  # type: ignore[arg-type]
        role="student",
        language="en",
        labels=tuple(bioes_labels(["LOC", "PER"])) if tagger else RELATIONS,
        relative_labels=((0, "root"), *RELATIVE) if kind == "labeller" else (),
        hidden_size=7,
        character_dim=3,
        character_features=4,
        arc_size=5,
        relation_size=6,
    )
    return replace(plain, **changes)


def model(described: ModelCard, *, sharpness: float = 6.0, encoder: Any = None) -> Any:
    """An untrained model whose scores are as far apart as a trained one's."""
    torch.manual_seed(7)
    built: Any = build_model(described, types(), encoder).eval()
    with torch.no_grad():
        for norm in built.modules():
            if isinstance(norm, torch.nn.LayerNorm):  # trained ones are not all 1 and 0
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.uniform_(-0.3, 0.3)
        for name in ("emissions", "label_scores", "arc", "relation_product"):
            if hasattr(built, name):
                getattr(built, name).weight.mul_(sharpness)
    return built


def sentences(count: int, *, longest: int = 12, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [rng.choice(WORDS, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


def bundle_of(folder: Path, kind: str, **changes: Any) -> Any:
    """Writes the bundle of a tiny model; returns the model."""
    described = card(kind, **changes)
    built = model(described)
    folder.mkdir(parents=True)
    about = {"objective": "structural", "seed": 1, "scores": {"dev": {"f1": 80.0}}}
    write_bundle(
        folder, TrainedModel(f"tiny-{kind}", "tiny", described, built, types(), vectors(), about=about)
    )
    return built


def run_folder(run: Path, kinds: dict[str, str], **changes: Any) -> Path:
    """A run as training leaves it, with a served student of each kind: task to kind."""
    vectors().save(run / "words")
    (run / "words" / "alphabet.json").write_text(json.dumps(ALPHABET))
    (run / "words" / "words.json").write_text(json.dumps(WORDS))
    (run / "test.txt").write_text("".join(" ".join(words) + "\n" for words in sentences(60)))
    for task, kind in kinds.items():
        described = card(kind, **changes)
        student = run / task / "students" / f"{kind}-structural-seed1"
        save_trained(
            student,
            model(described),
            described,
            objective="structural",
            seed=1,
            scores={"dev": {"f1": 81.25}, "test": {"f1": 80.5}},
            corpus={"name": "tiny", "digest": "0" * 64},
        )
        (run / task / "served.json").write_text(json.dumps({"student": f"students/{student.name}"}))
    return run


def encoder_folder(folder: Path) -> Path:
    """A Hugging Face folder of a tiny encoder with a piece for each character."""
    torch.manual_seed(3)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁", *sorted({c for word in WORDS for c in word})]
    tokenizer = Tokenizer(
        models.Unigram([(piece, -1.0 if piece[0] != "[" else -99.0) for piece in pieces], unk_id=1)
    )
    tokenizer.add_special_tokens(pieces[:4])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
    )
    encoder: Any = BertModel(config, add_pooling_layer=False)
    encoder.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
