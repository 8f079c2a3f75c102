"""``python -m export.paper_shape RUN``: a teacher of exactly the paper's size, with random weights.

Wang et al. 2021 compare their students with a teacher of 233.40 M parameters: M-BERT, forward and backward
Flair language models, fastText vectors and characters under a BiLSTM. This one has that shape, and answers
over HTTP as any other bundle. It has learnt nothing: it is exact for speed and size, and has no accuracy.

M-BERT takes 177.3 M of the parameters, the language models 35.3 M, and the BiLSTM with its scores about
11.2 M; fastText's table of words and subwords gets the rest.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import structural_kd
from export.model import TrainedModel, tasks_of, write_bundle
from export.paper_encoder import PaperEncoder, Shape, paper_encoder_graph
from export.write import new_bundle
from structural_kd.manifest import TOKENIZER, Manifest
from structural_kd.words import SubwordVectors
from train.models.card import EncoderUse, ModelCard, build_model, read_card
from train.models.encoders import Encoder
from train.models.words import WordTypes
from train.word_types import read_word_types

LAYERS = (-4, -3, -2, -1)
TRAINED_PIECES = 10_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NAME = "paper-shape"
RANDOM = "random weights"
SEED = 1

EXAMPLES = """\
examples:
  both tasks, with the labels and the words of a run:
    python -m export.paper_shape runs/quickstart
  a student's speed beside it:
    make loadtest

Takes a minute or two, 5 GB of memory and 1 GB of disk a task.
"""


def paper_tokenizer(sentences: Iterable[str], shape: Shape) -> Tokenizer:
    """A WordPiece tokenizer learnt from sentences, whose vocabulary is filled up to M-BERT's size.

    M-BERT's own cuts 104 languages; this one has its number of entries, and cuts the language at hand.
    """
    # The trainer of WordPiece breaks ties by chance, the one of byte pairs does not.
    pairs = Tokenizer(models.BPE(unk_token="[UNK]"))
    pairs.normalizer = normalizers.NFC()
    pairs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    size = min(TRAINED_PIECES, shape.vocabulary - len(SPECIAL)) // 2
    pairs.train_from_iterator(sentences, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    learnt = sorted(pairs.get_vocab())
    pieces = [*SPECIAL, *learnt, *(f"##{piece}" for piece in learnt)]
    pieces += [f"[unused{number}]" for number in range(len(pieces), shape.vocabulary)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def pieces_a_word(tokenizer: Tokenizer, sentences: Iterable[str]) -> float:
    """How many pieces a word becomes on average; words are split by white space, special pieces left out.

    The encoder's work grows with it. M-BERT's own vocabulary, spread over 104 languages, cuts finer.
    """
    words = [word for sentence in sentences for word in sentence.split()]
    return sum(map(len, tokenizer.encode_batch(words, add_special_tokens=False))) / max(len(words), 1)


def write_paper_shape(run: Path, task: str, target: Path, shape: Shape) -> Manifest:
    """Write the bundle; labels, words and language are those of the run's own teacher.

    Raises:
        FileNotFoundError: the run has no teacher of this task.
        ValueError: the shape's parts have more parameters than the whole.
    """
    own, _ = read_card(run / task / "teacher")
    card = replace(
        own,
        kind="crf" if task == "ner" else "biaffine",
        role="teacher",
        encoder=EncoderUse("M-BERT and Flair, random weights", LAYERS, shape.features, False),
        reads_words=True,
        hidden_size=shape.bilstm,
        context="lstm",
        layers=1,
        arc_distance=0,
    )
    torch.manual_seed(SEED)
    network = PaperEncoder(shape).eval()
    tokenizer = paper_tokenizer(_test_sentences(run), shape)
    words = read_word_types(run / "words")
    vectors, types = _word_vectors(words, card, network, shape)
    trained = TrainedModel(
        name=f"{NAME}-{task}",
        recipe=RANDOM,
        card=card,
        model=build_model(card, types).eval(),
        types=types,
        vectors=vectors,
        encoder=Encoder(NAME, RANDOM, network, tokenizer, shape.features, shape.positions, RANDOM),  # type: ignore[arg-type]
        about={"objective": RANDOM, "seed": SEED},
    )
    with new_bundle(target) as place:
        manifest = write_bundle(
            place,
            trained,
            graph_of_encoder=lambda encoder, layers: paper_encoder_graph(encoder, layers, tokenizer, shape),
        )
        structural_kd.load(place)
    return manifest


def _test_sentences(run: Path) -> list[str]:
    return (run / "test.txt").read_text(encoding="utf-8").splitlines()


def _word_vectors(
    words: WordTypes, card: ModelCard, network: PaperEncoder, shape: Shape
) -> tuple[SubwordVectors, WordTypes]:
    """fastText's table: a vector for each word of the run, and as many subwords as fill up the size."""
    generator = np.random.default_rng(SEED)

    def rows(count: int) -> np.ndarray:
        return generator.standard_normal((count, shape.vector_dim), dtype=np.float32) / 10

    known = SubwordVectors(words.words, rows(len(words.words)), None, 0, 0)
    types = WordTypes.build(words.words, known, words.alphabet)
    rest = shape.parameters - count_parameters([network, build_model(card, types)]) - known.vectors.size
    buckets = round(rest / shape.vector_dim)
    if buckets < 1:
        raise ValueError(
            f"{-rest:,} parameters more than the {shape.parameters:,} of the paper without any subwords; "
            f"the run has {len(words.words):,} words"
        )
    return SubwordVectors(words.words, known.vectors, rows(buckets), 3, 5), types


def count_parameters(parts: Iterable[torch.nn.Module]) -> int:
    """Weights of all parts together."""
    return sum(weight.numel() for part in parts for weight in part.parameters())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.paper_shape",
        description="Write a teacher of the paper's size, 233.40 M parameters, with random weights.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that python -m train wrote")
    parser.add_argument(
        "--out", type=Path, default=Path("bundles", NAME), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--task", choices=("ner", "parse"), help="default: every task of the run")
    options = parser.parse_args(arguments)
    try:
        for task in tasks_of(options.run, options.task):
            print(f"{task}: writing {options.out / task} (random weights, no accuracy)", file=sys.stderr)
            manifest = write_paper_shape(options.run, task, options.out / task, Shape())
            tokenizer = Tokenizer.from_file(str(options.out / task / TOKENIZER))
            cut = pieces_a_word(tokenizer, _test_sentences(options.run))
            print(
                f"{options.out / task}: {manifest.parameters / 1e6:.2f} M parameters, {manifest.kind}, "
                f"{cut:.2f} pieces a word"
            )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
