"""Sentences in, entities or trees out: what a bundle is for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from structural_kd import graph_io
from structural_kd.batches import length_batches
from structural_kd.encoder import PieceEncoder
from structural_kd.graph_io import GraphInputs
from structural_kd.manifest import (
    ENCODER,
    MANIFEST,
    MODEL,
    RELATIONS,
    TOKENIZER,
    WORDS,
    BundleError,
    Manifest,
    read_manifest,
    verify_files,
)
from structural_kd.parser import Parser
from structural_kd.results import ParsedSentence, TaggedSentence
from structural_kd.session import CPU, Array, Session, Shape, Signature, open_session
from structural_kd.tagger import Tagger
from structural_kd.word_projection import ProjectedWords
from structural_kd.words import IntArray

Sentences = Sequence[Sequence[str]]
Result = TaggedSentence | ParsedSentence

TOKENS_A_BATCH = 2048
"""Most tokens of one run of the graph: beyond about this many a CPU gains nothing."""

TRIAL = (("a",), ("a", "b"))
"""Sentences that a bundle has to answer before it counts as loaded."""


def load(
    path: str | Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = CPU,
    batch_tokens: int = TOKENS_A_BATCH,
) -> "Predictor":
    """Opens a bundle, after every file in it was compared with the manifest.

    Args:
        threads: cores that one call of `Predictor.predict` may use.
        providers: of ONNX Runtime; the first has to work, the others run what it cannot.
        batch_tokens: most tokens in one run of the graph, where more than one sentence is in it.

    Raises:
        BundleError: anything that is wrong with the bundle or with the runtime, by name.
        MissingExtraError: the model has an encoder, and the extra for those is not installed.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
    folder = Path(path)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)

    def open_graph(name: str, signature: Signature) -> Session:
        return open_session(
            folder / name,
            entry=manifest.files[name],
            signature=signature,
            threads=threads,
            providers=providers,
        )

    words = _load_words(folder, manifest)
    graph = open_graph(MODEL, graph_io.MODELS[manifest.kind])
    _check_width(folder / MODEL, "rows", graph.inputs["rows"], words.size, WORDS)
    relations = open_graph(RELATIONS, graph_io.RELATIONS) if manifest.kind == "biaffine" else None
    if relations is not None:
        for name, shape in relations.inputs.items():
            _check_width(folder / RELATIONS, name, shape, graph.output_shapes[name][-1], MODEL)
    if manifest.kind == "labeller":
        shape = graph.output_shapes["label_log_probs"]
        _check_width(folder / MODEL, "label_log_probs", shape, len(manifest.relative_labels), MANIFEST)
    decode: Tagger | Parser
    decode = Tagger(manifest) if manifest.task == "ner" else Parser(manifest, relations)
    encoder = None
    if manifest.encoder is not None:
        hidden = open_graph(ENCODER, graph_io.ENCODER)
        encoder = PieceEncoder(folder / TOKENIZER, hidden, manifest.encoder)
        shape = hidden.output_shapes["hidden"]
        _check_width(folder / ENCODER, "hidden", shape, encoder.size, MANIFEST)
    shape = graph.inputs.get("encoded", (0,))
    _check_width(folder / MODEL, "encoded", shape, encoder.size if encoder else 0, MANIFEST)
    predictor = Predictor(manifest, words, graph, decode, encoder=encoder, batch_tokens=batch_tokens)
    _try_out(predictor, folder)
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder}: replaced while it was loaded; load it again")
    return predictor


def _check_width(path: Path, name: str, shape: Shape, width: int | str | None, where: str) -> None:
    """Refuses a graph whose input or output says another width than what it is used with."""
    if None not in (shape[-1], width) and shape[-1] != width:
        raise BundleError(f"{path}: {name!r} has {shape[-1]} values, {where} means {width}")


def _try_out(predictor: "Predictor", folder: Path) -> None:
    """Refuses files that do not fit each other, as far as they can not answer a small batch."""
    tried = folder / (ENCODER if predictor.manifest.encoder else WORDS)
    try:
        batch = predictor.batch(TRIAL)
        tried = folder / MODEL
        predictor.decode(predictor.run(batch), batch.lengths)
    except Exception as error:  # of onnxruntime, tokenizers, numpy
        raise BundleError(f"{tried}: cannot answer {TRIAL}: {error}; export the bundle again") from error


def _load_words(folder: Path, manifest: Manifest) -> ProjectedWords:
    try:
        words = ProjectedWords.load(folder / WORDS)
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / WORDS}: cannot be read: {error}; export the bundle again") from error
    sizes = (words.table.vector_size, words.table.characters.size, words.size)
    settings = manifest.words
    if sizes != (settings.vector_size, settings.character_size, settings.projected_size):
        raise BundleError(f"{folder / WORDS}: rows of {sizes} values, the manifest says {settings}")
    return words


class Predictor:
    """A loaded bundle. Safe for use by several threads.

    ``manifest`` says what it is: its name, task, language, labels and role; ``providers`` what runs it, the
    first before the others; ``words`` are its word tables.
    """

    def __init__(
        self,
        manifest: Manifest,
        words: ProjectedWords,
        graph: Session,
        decode: Tagger | Parser,
        *,
        encoder: PieceEncoder | None = None,
        batch_tokens: int = TOKENS_A_BATCH,
    ) -> None:
        self.manifest = manifest
        self.providers = graph.providers
        self.words = words
        self._graph = graph
        self._decode = decode
        self._encoder = encoder
        self._batch_tokens = batch_tokens

    def predict(self, sentences: Sentences) -> list[Any]:
        """One `TaggedSentence` (entities) or `ParsedSentence` (trees) for each sentence, in the given order.

        An empty sentence has an empty result. A sentence that is a string raises TypeError.
        """
        if isinstance(sentences, str) or any(isinstance(words, str) for words in sentences):
            raise TypeError('expected sentences as lists of words, [["Ada", "slept"]], found a string')
        results: list[Result] = [self._decode.empty() for _ in sentences]
        for places in length_batches([len(words) for words in sentences], self._batch_tokens):
            batch = self.batch([sentences[i] for i in places])
            for i, result in zip(places, self.decode(self.run(batch), batch.lengths), strict=True):
                results[i] = result
        return results

    def batch(self, sentences: Sentences) -> GraphInputs:
        """What the graph reads of sentences that have at least one word each."""
        inputs = self.words.batch(sentences)
        if self._encoder is None:
            return inputs
        encoded = np.zeros((*inputs.words.shape, self._encoder.size), np.float32)  # [B, n, E]
        for features, sentence in zip(encoded, self._encoder.features(sentences), strict=True):
            features[: len(sentence)] = sentence
        return inputs._replace(encoded=encoded)

    def run(self, batch: GraphInputs) -> dict[str, Array]:
        """The graph's outputs by name."""
        return self._graph.run(**batch.feeds())

    def decode(self, out: dict[str, Array], lengths: IntArray) -> Sequence[Result]:
        """The results of one batch from the graph's outputs; these may be changed."""
        return self._decode(out, lengths)
