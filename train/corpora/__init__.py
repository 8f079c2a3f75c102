"""Corpora: sentences with tags and trees, their readers, and corpora by name."""

from train.corpora.conll import read_conll, write_conll
from train.corpora.conllu import read_conllu, write_conllu
from train.corpora.named import CORPORA, conllu_file, load_corpus
from train.corpora.sentence import Corpus, CorpusError, CorpusWarning, Sentence
from train.corpora.text import read_jsonl, read_text, write_jsonl

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusError",
    "CorpusWarning",
    "Sentence",
    "conllu_file",
    "load_corpus",
    "read_conll",
    "read_conllu",
    "read_jsonl",
    "read_text",
    "write_conll",
    "write_conllu",
    "write_jsonl",
]
