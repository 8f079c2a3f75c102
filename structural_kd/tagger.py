"""From what a tagger's graph answers to entities: Viterbi ran inside, spans and their scores are left."""

import numpy as np

from structural_kd.decoding import SpanReader, span_scores
from structural_kd.manifest import BundleError, Manifest
from structural_kd.results import Entity, TaggedSentence
from structural_kd.session import Array
from structural_kd.words import IntArray


class Tagger:
    """Reads the outputs of `export.tagger_graph`.

    Raises:
        BundleError: the manifest's labels are no BIOES tags.
    """

    def __init__(self, manifest: Manifest) -> None:
        try:
            self._reader = SpanReader(manifest.labels)
        except ValueError as error:
            raise BundleError(f"labels: {error}") from error
        self._tags = np.array(manifest.labels, dtype=object)  # [L]

    @staticmethod
    def empty() -> TaggedSentence:
        return TaggedSentence(entities=[], tags=[])

    def __call__(self, out: dict[str, Array], lengths: IntArray) -> list[TaggedSentence]:
        labels = out["labels"]  # [B, n]
        spans = self._reader.spans(labels, lengths)
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
        inside = np.arange(labels.shape[1]) < lengths[:, None]  # [B, n]
        tags = self._tags[labels[inside]].tolist()  # [T]
        ends = lengths.cumsum().tolist()
        return [
            TaggedSentence(found, tags[end - length : end])
            for found, end, length in zip(entities, ends, lengths.tolist(), strict=True)
        ]
