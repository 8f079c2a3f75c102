"""Sentences in, entities or trees out: what a bundle is for."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.decoding import RelativeArcs, SpanReader, complete_trees, span_scores
from bundle.manifest import (
    ENCODER,
    MODEL,
    RELATIONS,
    TOKENIZER,
    WORDS,
    BundleError,
    EncoderSettings,
    Manifest,
    read_manifest,
    verify_files,
)
from bundle.results import Entity, ParsedSentence, TaggedSentence
from bundle.session import CPU, Session, open_session
from bundle.words import WordTable

Sentences = Sequence[Sequence[str]]
Features = NDArray[np.float32]
Lengths = NDArray[np.int64]
Result = TaggedSentence | ParsedSentence
Open = Callable[[str], Session]

TOKENS_A_BATCH = 32 * 21
"""Padded tokens of one run of the graph: beyond about 32 sentences a CPU gets slower again."""

PIECES_A_RUN = 8192
"""Padded pieces of one run of an encoder: words of hundreds of pieces would take gigabytes in one run."""


def load(
    path: str | Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = CPU,
    allow_fallback: bool = False,
    batch_tokens: int = TOKENS_A_BATCH,
) -> "Predictor":
    """Opens a bundle, after every file in it was compared with the manifest.

    Args:
        threads: cores that one call of `Predictor.predict` may use.
        providers: of ONNX Runtime; the first has to work unless ``allow_fallback``, which logs what is used.
        batch_tokens: most padded tokens in one run of the graph.

    Raises:
        BundleError: anything that is wrong with the bundle or with the runtime, by name.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    verify_files(folder, manifest)

    def open_graph(name: str) -> Session:
        return open_session(
            folder / name, threads=threads, providers=providers, allow_fallback=allow_fallback
        )

    try:
        words = WordTable.load(folder / WORDS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / WORDS}: cannot be read: {error}; export the bundle again") from error
    sizes = (words.vector_size, words.characters.size)
    if sizes != (manifest.words.vector_size, manifest.words.character_size):
        raise BundleError(f"{folder / WORDS}: rows of {sizes} values, the manifest says {manifest.words}")
    encoder = None
    if manifest.encoder is not None:
        encoder = PieceEncoder(folder / TOKENIZER, open_graph(ENCODER), manifest.encoder)
    tagger_or_parser = (_Tagger if manifest.task == "ner" else _Parser)(manifest, open_graph)
    expected = words.size + (manifest.encoder.size if manifest.encoder else 0)
    if (width := tagger_or_parser.graph.inputs["words"][-1]) != expected:
        raise BundleError(f"{folder / MODEL}: reads {width} features a word, the manifest means {expected}")
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder}: replaced while it was loaded; load it again")
    return Predictor(manifest, words, tagger_or_parser, encoder=encoder, batch_tokens=batch_tokens)


class Predictor:
    """A loaded bundle. Safe for use by several threads.

    ``manifest`` says what it is: its name, task, language, labels and role.
    """

    def __init__(
        self,
        manifest: Manifest,
        words: WordTable,
        tagger_or_parser: "_Tagger | _Parser",
        *,
        encoder: "PieceEncoder | None" = None,
        batch_tokens: int = TOKENS_A_BATCH,
    ) -> None:
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.manifest = manifest
        self._words = words
        self._tagger_or_parser = tagger_or_parser
        self._encoder = encoder
        self._batch_tokens = batch_tokens

    def predict(self, sentences: Sentences) -> list[Any]:
        """One `TaggedSentence` (entities) or `ParsedSentence` (trees) for each sentence, in the given order.

        An empty sentence has an empty result.
        """
        results: list[Result] = [self._tagger_or_parser.empty() for _ in sentences]
        for batch in length_batches([len(words) for words in sentences], self._batch_tokens):
            features, lengths = self.features([sentences[i] for i in batch])
            for i, result in zip(batch, self.decode(features, lengths), strict=True):
                results[i] = result
        return results

    def decode(self, features: Features, lengths: Lengths) -> Sequence[Result]:
        """The results of one batch from what `features` gives; every sentence has at least one word."""
        return self._tagger_or_parser(features, lengths)

    def features(self, sentences: Sentences) -> tuple[Features, Lengths]:
        """What the graph reads: [B, n, D] (encoder ⊕ word vector ⊕ character features) and lengths [B]."""
        rows, lengths = self._words.rows(sentences)  # [B, n, W]
        if self._encoder is None:
            return rows, lengths
        size = self._encoder.size
        features = np.zeros((*rows.shape[:2], size + rows.shape[2]), np.float32)  # [B, n, E + W]
        features[..., size:] = rows
        for i, encoded in enumerate(self._encoder.features(sentences)):
            features[i, : len(encoded), :size] = encoded
        return features, lengths


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Places of the non-empty sentences, shortest first, cut where padding would exceed ``batch_tokens``.

    A sentence that is longer than that alone is a batch of its own.

    >>> list(length_batches([3, 0, 1, 2], 4))
    [[2, 3], [0]]
    """
    batch: list[int] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class PieceEncoder:
    """The pretrained encoder in front of a teacher."""

    def __init__(self, tokenizer: Path, graph: Session, settings: EncoderSettings) -> None:
        # Students are served without the tokenizers package.
        from bundle.pieces import load_tokenizer

        try:
            self._tokenizer = load_tokenizer(tokenizer)
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f"{tokenizer}: cannot be read: {error}; export the bundle again") from error
        self._graph = graph
        self._max_pieces = settings.max_pieces
        self.size = settings.size

    def features(self, sentences: Sentences) -> list[Features]:
        """Encoder features of each sentence's words, [n, E]; there is at least one word in all."""
        from bundle.pieces import pool, words_to_pieces

        pieces = words_to_pieces(self._tokenizer, sentences, self._max_pieces)
        windows, longest = pieces.ids.shape
        several = max(1, PIECES_A_RUN // longest)
        hidden = [
            self._graph.run(ids=pieces.ids[i : i + several], mask=pieces.mask[i : i + several])["hidden"]
            for i in range(0, windows, several)
        ]
        return pool(np.concatenate(hidden), pieces)  # [W, p, E]


class _Tagger:
    """Decodes the graph of a tagger: Viterbi ran inside, what is left are spans and their probabilities."""

    def __init__(self, manifest: Manifest, open_graph: Open) -> None:
        self.graph = open_graph(MODEL)
        try:
            self._reader = SpanReader(manifest.labels)
        except ValueError as error:
            raise BundleError(f"labels: {error}") from error
        self._tags = np.array(manifest.labels, dtype=object)  # [L]

    @staticmethod
    def empty() -> TaggedSentence:
        return TaggedSentence(entities=[], tags=[])

    def __call__(self, features: Features, lengths: Lengths) -> list[TaggedSentence]:
        out = self.graph.run(words=features, lengths=lengths)
        spans = self._reader.spans(out["labels"], lengths)
        scores = span_scores(spans, out["token_log_probs"], out["pair_log_probs"])  # [S]
        entities: list[list[Entity]] = [[] for _ in lengths]
        types = self._reader.types
        for sentence, start, end, label, score in zip(
            spans.sentence.tolist(),
            spans.start.tolist(),
            spans.end.tolist(),
            spans.label.tolist(),
            scores.tolist(),
            strict=True,
        ):
            entities[sentence].append(Entity(types[label], start, end, score))
        tags = self._tags[out["labels"]].tolist()  # [B][n]
        return [
            TaggedSentence(found, row[:length])
            for found, row, length in zip(entities, tags, lengths.tolist(), strict=True)
        ]


class _Parser:
    """Decodes the graph of a parser: greedy heads, and the best tree where they are none.

    The graph's other outputs hold what the repair needs, so that no sentence runs through it twice.
    """

    def __init__(self, manifest: Manifest, open_graph: Open) -> None:
        self.graph = open_graph(MODEL)
        self._deprels = np.array(manifest.labels, dtype=object)  # [R]
        self._arcs: _BiaffineArcs | _LabelArcs
        if manifest.kind == "biaffine":
            self._arcs = _BiaffineArcs(open_graph(RELATIONS))
        else:
            self._arcs = _LabelArcs(RelativeArcs(manifest.relative_labels, manifest.labels))

    @staticmethod
    def empty() -> ParsedSentence:
        return ParsedSentence(heads=[], deprels=[], scores=[])

    def __call__(self, features: Features, lengths: Lengths) -> list[ParsedSentence]:
        out = self.graph.run(words=features, lengths=lengths)
        heads, relations, log_probs = out["heads"], out["relations"], out["log_probs"]  # [B, n] each
        greedy = heads
        heads, changed = complete_trees(greedy, lengths, lambda broken: self._arcs.scores(out, broken))
        if len(changed):
            row, token = np.nonzero(heads[changed] != greedy[changed])
            sentence = changed[row]
            relations[sentence, token], log_probs[sentence, token] = self._arcs.relations(
                out, sentence, token, heads[sentence, token]
            )
        deprels = self._deprels[relations].tolist()  # [B][n]
        return [
            ParsedSentence(row_heads[:n], row_deprels[:n], row_scores[:n])
            for row_heads, row_deprels, row_scores, n in zip(
                heads.tolist(), deprels, np.exp(log_probs).tolist(), lengths.tolist(), strict=True
            )
        ]


Outputs = dict[str, NDArray[Any]]


class _BiaffineArcs:
    """Arc scores from the graph; relations of single arcs from a second, small one."""

    def __init__(self, relations: Session) -> None:
        self._relations = relations

    def scores(self, out: Outputs, sentences: NDArray[np.int64]) -> NDArray[Any]:
        arcs: NDArray[Any] = out["arc_log_probs"][sentences]  # [k, n, n+1]
        return arcs

    def relations(
        self, out: Outputs, sentence: Lengths, token: Lengths, head: Lengths
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        best = self._relations.run(
            dependents=out["dependents"][sentence, token], governors=out["governors"][sentence, head]
        )
        return best["relations"], out["arc_log_probs"][sentence, token, head] + best["relation_log_probs"]


class _LabelArcs:
    """Arc scores and relations from the scores of relative labels."""

    def __init__(self, arcs: RelativeArcs) -> None:
        self._arcs = arcs

    def scores(self, out: Outputs, sentences: NDArray[np.int64]) -> NDArray[Any]:
        return self._arcs.arc_scores(out["label_log_probs"][sentences])

    def relations(
        self, out: Outputs, sentence: Lengths, token: Lengths, head: Lengths
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._arcs.relations(token, head, out["label_log_probs"][sentence, token])
