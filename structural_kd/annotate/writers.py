"""Records and their answers to bytes: JSON lines, CoNLL-U and tagged text."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from structural_kd.annotate.records import BadRecord, Record
from structural_kd.results import ParsedSentence, TaggedSentence

ENTITY_KEY = "NER"
"""The key in CoNLL-U's MISC column that holds a token's BIOES tag."""

RESULT_KEYS: Mapping[str, frozenset[str]] = {
    "ner": frozenset({"tokens", "entities", "cuts"}),
    "parse": frozenset({"tokens", "heads", "deprels", "scores", "sentences", "cuts"}),
}
"""The keys of a JSON result, by task."""


@dataclass(frozen=True, slots=True)
class AnnotatedRecord:
    """A record with the answers for each of its sentences; None where no bundle for the task runs."""

    record: Record
    tagged: Sequence[TaggedSentence] | None = None
    parsed: Sequence[ParsedSentence] | None = None


Writer = Callable[[AnnotatedRecord | BadRecord], str]


def write_jsonl(item: AnnotatedRecord | BadRecord) -> str:
    """A line: what the HTTP server answers for one item, or {"error": {"line": …, "message": …}}."""
    if isinstance(item, BadRecord):
        return _json({"error": {"line": item.line, "message": item.message}}) + "\n"
    record = item.record
    result: dict[str, Any] = {"tokens": record.tokens}
    starts = [start for start, _ in record.sentences]
    if item.tagged is not None:
        result["entities"] = [
            _entity(record, found.label, found.start + start, found.end + start, found.score)
            for start, sentence in zip(starts, item.tagged, strict=True)
            for found in sentence.entities
        ]
    if item.parsed is not None:
        result["heads"] = [
            head + start if head else 0
            for start, sentence in zip(starts, item.parsed, strict=True)
            for head in sentence.heads
        ]
        result["deprels"] = list(chain.from_iterable(sentence.deprels for sentence in item.parsed))
        result["scores"] = list(chain.from_iterable(sentence.scores for sentence in item.parsed))
        result["sentences"] = [{"start": start, "end": end} for start, end in record.sentences]
    if record.cuts:
        result["cuts"] = record.cuts
    line = _json(result)
    return f"{{{record.carried},{line[1:]}\n" if record.carried else f"{line}\n"


def write_conllu(item: AnnotatedRecord | BadRecord) -> str:
    """A block for each sentence, or one that is only a comment: `# error = line 17: …`.

    Of a sentence that came as CoNLL-U, the comments, ranges, empty nodes and other columns stay.
    """
    if isinstance(item, BadRecord):
        return f"# error = line {item.line}: {item.message}\n\n"
    record = item.record
    blocks = [[list(cells) for cells in record.rows]] if record.rows else _new_rows(record)
    lines: list[str] = []
    for number, rows in enumerate(blocks):
        tagged = item.tagged[number] if item.tagged else None
        parsed = item.parsed[number] if item.parsed else None
        word = 0
        for cells in rows:
            if cells[0].isdecimal():
                if parsed:
                    cells[6], cells[7] = str(parsed.heads[word]), parsed.deprels[word]
                if tagged:
                    cells[9] = _misc(cells[9], tagged.tags[word])
                word += 1
            lines.append("\t".join(cells))
        lines.append("")
    return "".join(f"{line}\n" for line in lines)


def write_text(item: AnnotatedRecord | BadRecord) -> str:
    """A line for each sentence, each token with its tag: `Ada/B-PER Lovelace/E-PER wrote/O`.

    A record without tokens, or a bad one, is an empty line.
    """
    if isinstance(item, BadRecord) or not item.record.sentences:
        return "\n"
    return "".join(
        " ".join(map("/".join, zip(item.record.tokens[start:end], sentence.tags, strict=True))) + "\n"
        for (start, end), sentence in zip(item.record.sentences, item.tagged or (), strict=True)
    )


WRITERS: Mapping[str, Writer] = {"jsonl": write_jsonl, "conllu": write_conllu, "text": write_text}


def _entity(record: Record, label: str, start: int, end: int, score: float) -> dict[str, Any]:
    if record.text is None:
        start_char = end_char = None
        text = " ".join(record.tokens[start:end])
    else:
        start_char, end_char = record.places[start][0], record.places[end - 1][1]
        text = record.text[start_char:end_char]
    return {
        "label": label,
        "start": start,
        "end": end,
        "start_char": start_char,
        "end_char": end_char,
        "text": text,
        "score": score,
    }


def _misc(misc: str, tag: str) -> str:
    kept = [] if misc == "_" else [item for item in misc.split("|") if not item.startswith(f"{ENTITY_KEY}=")]
    return "|".join([*kept, f"{ENTITY_KEY}={tag}"])


def _new_rows(record: Record) -> Iterator[list[list[str]]]:
    """Comments and rows of each sentence; a record without one is a block of comments."""
    name = f"line-{record.line}"
    head = [[f"# newdoc id = {name}"], *([[f"# carried = {{{record.carried}}}"]] if record.carried else [])]
    if not record.sentences:
        yield head
    for number, (start, end) in enumerate(record.sentences, start=1):
        rows = [*(head if number == 1 else []), [f"# sent_id = {name}-{number}"]]
        spaced = [_space_after(record, index) for index in range(start, end)]
        if record.text is not None:
            forms = zip(record.tokens[start:end], spaced, strict=True)
            rows.append(["# text = " + "".join(form + " " * space for form, space in forms).rstrip()])
        for index, space in zip(range(start, end), spaced, strict=True):
            misc = "_" if space else "SpaceAfter=No"
            rows.append([str(index - start + 1), record.tokens[index], *"____", "_", "_", "_", misc])
        yield rows


def _space_after(record: Record, index: int) -> bool:
    """Whether white space, the end of the text, or nothing known follows a token."""
    if record.text is None or index + 1 == len(record.places):
        return True
    return record.places[index][1] != record.places[index + 1][0]


_json: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), check_circular=False
).encode
