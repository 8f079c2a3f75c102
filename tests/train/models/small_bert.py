"""A BERT with random weights and one piece a letter."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["<pad>", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


def letters_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(8)
    return tokenizer


def write_bert(folder: Path, model: Any, **settings: Any) -> Path:
    """A folder as `save_pretrained` of a class of BERT writes it, with a tokenizer."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SIZES, "initializer_range": 0.5, **settings})
    model(config).save_pretrained(folder)
    letters_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def copy_files(source: Path, target: Path, leave_out: str = "") -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(leave_out), dirs_exist_ok=True)
