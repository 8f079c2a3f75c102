"""Test sentences that the student alone and the distilled student answer differently, for people to read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from structural_kd.files import write_whole
from structural_kd.labels import spans_from_bioes
from train.corpora import Sentence, read_jsonl
from train.tasks import TASKS
from train.train_network import PREDICTIONS
from train.train_teachers import TEACHER_PREDICTIONS

MOST = 10
"""Sentences a task."""
TITLES = {"ner": "Entities", "parse": "Trees"}
OUTCOMES = ("the distilled student is nearer to the gold", "the student alone is nearer to the gold",
            "both are as far from the gold")  # fmt: skip

Answer = dict[Any, str]
"""What a system says of a sentence: by span the label, or by token the arc."""


@dataclass(frozen=True)
class Example:
    """One sentence with the answers of gold, teacher, student alone and distilled student."""

    words: tuple[str, ...]
    answers: tuple[Answer, Answer, Answer, Answer]

    @property
    def differs(self) -> bool:
        _, _, alone, distilled = self.answers
        return alone != distilled

    @property
    def outcome(self) -> int:
        """Which of ``OUTCOMES`` it is, by the number of spans or arcs that differ from the gold's."""
        gold, _, alone, distilled = (set(answer.items()) for answer in self.answers)
        nearer = len(alone ^ gold) - len(distilled ^ gold)
        return 0 if nearer > 0 else 1 if nearer < 0 else 2


def write_examples(run: Path) -> str | None:
    """Write ``examples.md`` of a finished run, and return it.

    None where no task has both a student alone and a distilled one of the same kind with their predictions.
    """
    parts = [part for task in TITLES if (part := _examples_of(run, task))]
    if not parts:
        return None
    text = "\n\n".join(parts) + "\n"
    write_whole(run / "examples.md", text)
    return text


def compared_students(run: Path, task: str) -> tuple[Path, Path] | None:
    """The student alone and the distilled student of a run that are compared, by their folders.

    The distilled one is that which is served, or, where one that learned alone is, the best on dev of its
    kind; the other is the best on dev of that kind that learned alone.
    """
    served = run / task / "served.json"
    if not served.is_file():
        return None
    chosen = run / task / json.loads(served.read_text(encoding="utf-8"))["student"]
    kind, objective, _ = _read_about(chosen)
    best: dict[bool, tuple[float, Path]] = {}
    for file in sorted(run.glob(f"{task}/students/*/model.json")):
        its_kind, its_objective, score = _read_about(file.parent)
        alone = its_objective == "none"
        if its_kind == kind and (alone not in best or score > best[alone][0]):
            best[alone] = score, file.parent
    if len(best) < 2:
        return None
    return best[True][1], best[False][1] if objective == "none" else chosen


def choose(examples: Sequence[Example], most: int = MOST, seed: int = 0) -> list[Example]:
    """A few of the examples, each outcome in the proportion in which it occurs, drawn from its shorter half.

    The same examples and seed give the same choice, in the order of the examples.
    """
    by_outcome: list[list[int]] = [[] for _ in OUTCOMES]
    for number, example in enumerate(examples):
        by_outcome[example.outcome].append(number)
    most = min(most, len(examples))
    exact = [most * len(group) / max(1, len(examples)) for group in by_outcome]
    counts = [int(share) for share in exact]
    # Largest remainders.
    for place in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: most - sum(counts)]:
        counts[place] += 1
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    for group, count in zip(by_outcome, counts, strict=True):
        shortest = sorted(group, key=lambda i: len(examples[i].words))[: max(count, len(group) // 2)]
        chosen += generator.choice(shortest, count, replace=False).tolist() if count else []
    return [examples[i] for i in sorted(chosen)]


def _examples_of(run: Path, task: str) -> str | None:
    students = compared_students(run, task)
    if students is None:
        return None
    teacher = run / task / TEACHER_PREDICTIONS
    files = [run / "test.jsonl", teacher, *(folder / PREDICTIONS for folder in students)]
    if not all(file.is_file() for file in files):
        return None
    columns = [read_jsonl(file) for file in files]
    has_gold = TASKS[task]([]).has_gold
    rows = [row for row in zip(*columns, strict=True) if has_gold(row[0])]
    if not rows:
        return None
    return _report(task, _examples(task, rows), len(rows), [folder.name for folder in students])


def _examples(task: str, rows: Sequence[tuple[Sentence, ...]]) -> list[Example]:
    """The sentences that the two students answer differently."""
    answer = _ANSWERS[task]
    found = []
    for row in rows:
        gold, teacher, alone, distilled = (answer(sentence) for sentence in row)
        found.append(Example(row[0].words, (gold, teacher, alone, distilled)))
    return [example for example in found if example.differs]


def _report(task: str, examples: Sequence[Example], tested: int, names: Sequence[str]) -> str:
    occurring = [sum(example.outcome == place for example in examples) for place in range(len(OUTCOMES))]
    chosen = choose(examples)
    counted = "; ".join(f"in {count} {what}" for count, what in zip(occurring, OUTCOMES, strict=True))
    parts = [
        f"## {TITLES[task]}: {names[1]} beside {names[0]}",
        f"The two students answer {len(examples)} of {tested} test sentences differently: {counted}.",
    ]
    if chosen:
        parts[1] += f" Here are {len(chosen)}, in that proportion, drawn from the shorter ones."
    for number, example in enumerate(chosen, 1):
        words = _isolated(" ".join(example.words))
        parts.append(f"**{number}.** {words}\n\n{_table(task, example)}\n\n{OUTCOMES[example.outcome]}")
    return "\n\n".join(parts)


def _table(task: str, example: Example) -> str:
    """What the systems say: of every entity that any of them has, or every token whose arcs differ.

    A line has one entity or token, isolated from what is around it: text from right to left stays readable.
    """
    _, _, alone, distilled = example.answers
    if task == "ner":
        items = sorted({span for answer in example.answers for span in answer})
        names = [" ".join(example.words[start:end]) for start, end in items]
    else:
        items = [token for token in alone if alone[token] != distilled[token]]
        names = [example.words[token] for token in items]
    lines = [
        [_isolated(name), *(answer.get(item, "–") for answer in example.answers)]
        for item, name in zip(items, names, strict=True)
    ]
    headers = ["entity" if task == "ner" else "word", "gold", "teacher", "alone", "distilled"]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)


def _entities(sentence: Sentence) -> Answer:
    return {(start, end): label for label, start, end in spans_from_bioes(sentence.tags or ())}


def _arcs(sentence: Sentence) -> Answer:
    """By token its head's word and the relation: the root's head is no word."""
    assert sentence.heads is not None
    assert sentence.deprels is not None
    heads = [_isolated("root") if head == 0 else _head(sentence.words, head) for head in sentence.heads]
    return {
        token: f"{relation} → {head}"
        for token, (head, relation) in enumerate(zip(heads, sentence.deprels, strict=True))
    }


def _head(words: Sequence[str], head: int) -> str:
    """A head's word; with its place where the sentence has the word twice."""
    word = words[head - 1]
    return _isolated(word) + (f" ({head})" if words.count(word) > 1 else "")


def _isolated(text: str) -> str:
    """Text whose direction leaves what is around it alone, with Markdown's own characters escaped."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in text)
    return f"\N{FIRST STRONG ISOLATE}{escaped}\N{POP DIRECTIONAL ISOLATE}"


def _read_about(student: Path) -> tuple[str, str, float]:
    """Kind, objective and the dev score that chooses between students."""
    about = json.loads((student / "model.json").read_text(encoding="utf-8"))
    task, scores = about["card"]["task"], about["scores"]["dev"]
    return about["card"]["kind"], about["objective"], scores.get(TASKS[task].metric, 0.0)


_ANSWERS: dict[str, Callable[[Sentence], Answer]] = {"ner": _entities, "parse": _arcs}
