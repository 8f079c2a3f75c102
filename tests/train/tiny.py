"""A small corpus with entities and trees, and an encoder with random weights, for tests of whole runs."""

from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, BertModel

NAMES = ("Ada", "Alan", "Grace", "Kurt")
PLACES = ("Rome", "Oslo", "Turin")
VERBS = ("sees", "likes", "visits")


def sentence(number: int) -> list[tuple[str, int, str, str]]:
    """Word, head, relation and entity tag of each token: «Ada of Rome visits Oslo .»"""
    name, place = NAMES[number % 4], PLACES[number % 3]
    verb, goal = VERBS[number % 3], (PLACES + NAMES)[number % 7]
    tag = "B-LOC" if goal in PLACES else "B-PER"
    long = [(name, 4, "nsubj", "B-PER"), ("of", 3, "case", "O"), (place, 1, "nmod", "B-LOC")]
    short = [(name, 2, "nsubj", "B-PER")]
    subject = long if number % 2 else short
    at = len(subject) + 1
    return [*subject, (verb, 0, "root", "O"), (goal, at, "obj", tag), (".", at, "punct", "O")]


def write_corpus(folder: Path) -> Path:
    """A folder with 40 train, 8 dev and 8 test sentences in CoNLL-U."""
    folder.mkdir(parents=True)
    for split, first, count in (("train", 0, 40), ("dev", 40, 8), ("test", 48, 8)):
        lines = []
        for number in range(first, first + count):
            for i, (word, head, relation, tag) in enumerate(sentence(number), 1):
                lines.append(f"{i}\t{word}\t_\t_\t_\t_\t{head}\t{relation}\t_\tNER={tag}")
            lines.append("")
        (folder / f"{split}.conllu").write_text("\n".join(lines) + "\n")
    return folder


def write_encoder(folder: Path) -> Path:
    """A BERT of two layers of 16 units over the corpus's letters, as a Hugging Face folder."""
    letters = sorted({letter for word in (*NAMES, *PLACES, *VERBS, "of", ".") for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_recipe(folder: Path, **changes: object) -> Path:
    """A recipe over the small corpus with every student; seconds to run."""
    sizes = {"hidden_size": 16, "arc_size": 8, "relation_size": 8}
    training = {**sizes, "steps": 12, "batch_tokens": 160, "evaluations": 3}
    recipe = {
        "corpus": str(folder / "xx_tiny"),
        "labelled": 24,
        "encoder": {"name": str(folder / "encoder"), "layers": [-2, -1]},
        "vectors": {"dim": 8, "epochs": 2, "buckets": 500},
        "distillation": {"objectives": ["none", "top1", "structural"], "temperature": 2.0, "anneal": 1.0},
        "tasks": {
            "ner": {"teacher": training, "students": {"crf": training, "softmax": training}},
            "parse": {"teacher": training, "students": {"biaffine": training, "labeller": training}},
        },
        "device": "cpu",
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def write_token_classifier(folder: Path) -> Path:
    """A BERT with random weights and a token-classification head over IOB2 labels, as one downloads it."""
    write_encoder(folder)
    labels = ["O", "B-PERSON", "I-PERSON", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    config = BertConfig.from_pretrained(folder, id2label=dict(enumerate(labels)), num_labels=len(labels))
    torch.manual_seed(0)
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


def write_text(path: Path, sentences: int) -> Path:
    """Raw text, a sentence a line."""
    lines = [" ".join(word for word, _, _, _ in sentence(number)) for number in range(sentences)]
    path.write_text("\n".join(lines) + "\n")
    return path
