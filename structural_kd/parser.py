"""From what a parser's graph answers to trees: greedy heads, and the best tree where they are none."""

from itertools import pairwise
from typing import Protocol

import numpy as np

from structural_kd.decoding import RelativeArcs, Scores, complete_trees
from structural_kd.manifest import Manifest
from structural_kd.results import ParsedSentence
from structural_kd.session import Array, Session
from structural_kd.words import IntArray

Outputs = dict[str, Array]


class Arcs(Protocol):
    """What repairs a sentence whose greedy heads are no tree, from the other outputs of its graph."""

    def scores(self, out: Outputs, lengths: IntArray, sentences: IntArray) -> Scores:
        """Arc scores [k, n, n+1] of sentences [k]."""

    def relations(
        self, out: Outputs, lengths: IntArray, sentence: IntArray, token: IntArray, head: IntArray
    ) -> tuple[IntArray, Scores]:
        """The best relation of single arcs [m], and the arc's log-probability with it."""


class Parser:
    """Reads the outputs of `export.parser_graph`; no sentence runs through the graph twice.

    Args:
        relations: the session of `relations_graph`, of a biaffine parser.
    """

    def __init__(self, manifest: Manifest, relations: Session | None) -> None:
        self._deprels = np.array(manifest.labels, dtype=object)  # [R]
        self._arcs: Arcs
        if relations is not None:
            self._arcs = BiaffineArcs(relations)
        else:
            self._arcs = LabelArcs(RelativeArcs(manifest.relative_labels, manifest.labels))

    @staticmethod
    def empty() -> ParsedSentence:
        return ParsedSentence(heads=[], deprels=[], scores=[])

    def __call__(self, out: Outputs, lengths: IntArray) -> list[ParsedSentence]:
        greedy, relations, log_probs = out["heads"], out["relations"], out["log_probs"]  # [B, n] each
        heads, changed = complete_trees(
            greedy, lengths, lambda broken: self._arcs.scores(out, lengths, broken)
        )
        if len(changed):
            row, token = np.nonzero(heads[changed] != greedy[changed])
            sentence = changed[row]
            relations[sentence, token], log_probs[sentence, token] = self._arcs.relations(
                out, lengths, sentence, token, heads[sentence, token]
            )
        inside = np.arange(heads.shape[1]) < lengths[:, None]  # [B, n]
        all_heads = heads[inside].tolist()  # [T]
        deprels = self._deprels[relations[inside]].tolist()
        scores = np.exp(log_probs[inside]).tolist()
        return [
            ParsedSentence(all_heads[start:end], deprels[start:end], scores[start:end])
            for start, end in pairwise([0, *lengths.cumsum().tolist()])
        ]


def _first_tokens(lengths: IntArray) -> IntArray:
    """The place of each sentence's first token among the tokens of all: [B] -> [B]."""
    return lengths.cumsum() - lengths


class BiaffineArcs:
    """Arc scores from the graph; relations of single arcs from a second, small one."""

    def __init__(self, relations: Session) -> None:
        self._relations = relations

    def scores(self, out: Outputs, lengths: IntArray, sentences: IntArray) -> Scores:
        arcs: Scores = out["arc_log_probs"][sentences]  # [k, n, n+1]
        return arcs

    def relations(
        self, out: Outputs, lengths: IntArray, sentence: IntArray, token: IntArray, head: IntArray
    ) -> tuple[IntArray, Scores]:
        first = _first_tokens(lengths)[sentence]  # [m]
        root = len(out["governors"]) - 1
        best = self._relations.run(
            dependents=out["dependents"][first + token],
            governors=out["governors"][np.where(head == 0, root, first + head - 1)],
        )
        return best["relations"], out["arc_log_probs"][sentence, token, head] + best["relation_log_probs"]


class LabelArcs:
    """Arc scores and relations from the scores of relative labels."""

    def __init__(self, arcs: RelativeArcs) -> None:
        self._arcs = arcs

    def scores(self, out: Outputs, lengths: IntArray, sentences: IntArray) -> Scores:
        labels = out["label_log_probs"]  # [T, K]
        longest = out["heads"].shape[1]
        first = _first_tokens(lengths)[sentences]  # [k]
        token = np.minimum(np.arange(longest), lengths[sentences, None] - 1)  # [k, n]
        return self._arcs.arc_scores(labels[first[:, None] + token])

    def relations(
        self, out: Outputs, lengths: IntArray, sentence: IntArray, token: IntArray, head: IntArray
    ) -> tuple[IntArray, Scores]:
        first = _first_tokens(lengths)[sentence]  # [m]
        return self._arcs.relations(token, head, out["label_log_probs"][first + token])
