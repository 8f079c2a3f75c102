"""What the comparison says: the figures aimed at, a table, and the conditions; as JSON and Markdown."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.peers.measure import Scores, Speed
from benchmarks.peers.system import System

TITLE = "Where the students stand among their peers"

ORDER = (
    "ner_fp32", "ner_int8", "ner_teacher", "parse_fp32", "parse_int8", "parse_teacher",
    "spacy", "spacy_ner", "spacy_parse", "udpipe", "crfsuite",
)  # fmt: skip

NOTES: Mapping[str, str] = {
    "spacy": "spaCy: the configuration of `spacy init config --pipeline ner,parser --optimize efficiency`, "
    "which has no pretrained vectors.",
    "udpipe": "UDPipe: its library's defaults, but for 5 iterations of the tagger in place of 20; its parser "
    "needs the tagger, which is timed with it.",
    "crfsuite": "CRFsuite stands in for NameTag, whose Python package holds no trainer.",
}
"""What a reader has to know of a system."""

REQUIRED: Mapping[str, tuple[float, str]] = {
    "f1_minus_spacy": (5, "entities: points of F1 of the student in fp32 above spaCy"),
    "las_minus_spacy": (1, "trees: points of LAS of the student in fp32 above spaCy, without punctuation"),
    "ner_vs_spacy_speed": (6, "entities: speed of the student in fp32 against spaCy's pipeline of both"),
    "parse_vs_spacy_speed": (6, "trees: speed of the student in fp32 against spaCy's pipeline of both"),
}
"""What each has to be at least."""


@dataclass(frozen=True)
class Row:
    """One system: its name in tables, what it holds and needs on disk, how good and how fast it is."""

    title: str
    parameters: int | None
    size: int | None
    scores: Scores
    speed: Speed

    @classmethod
    def of(cls, system: System, scores: Scores, speed: Speed) -> "Row":
        return cls(system.title, system.parameters, system.size, scores, speed)


@dataclass(frozen=True)
class Students:
    """How the students came to be."""

    seed: int
    encoder: str
    vectors: str


@dataclass(frozen=True)
class Comparison:
    """All rows by name, and under which conditions they were measured.

    students: None where they are not among the systems.
    training: for each trainer what its stamp says.
    """

    rows: Mapping[str, Row]
    corpus: str
    sentences: int
    tokens: int
    rounds: int
    students: Students | None
    training: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    date: str


def figures(rows: Mapping[str, Row]) -> dict[str, float]:
    """The figures of `REQUIRED`, and other ways to compare beside them; what lacks a system is left out.

    ``*_vs_spacy_alone``: against spaCy with that one component. ``both_vs_spacy_speed``: entities and trees,
    by two students one after the other, against spaCy's pipeline of both.
    """
    found: dict[str, float] = {}

    def speed(name: str) -> float:
        return rows[name].speed.tokens_per_second

    for key, name, metric in (("f1", "ner", "f1"), ("las", "parse", "las")):
        for precision, suffix in (("fp32", ""), ("int8", "_int8")):
            ours, theirs = rows.get(f"{name}_{precision}"), rows.get("spacy")
            if ours is None or theirs is None:
                continue
            one, other = getattr(ours.scores, metric), getattr(theirs.scores, metric)
            found[f"{key}{suffix}_minus_spacy"] = one - other
            found[f"{name}{suffix}_vs_spacy_speed"] = speed(f"{name}_{precision}") / speed("spacy")
            if f"spacy_{name}" in rows:
                found[f"{name}{suffix}_vs_spacy_alone"] = speed(f"{name}_{precision}") / speed(
                    f"spacy_{name}"
                )
    for precision, suffix in (("fp32", ""), ("int8", "_int8")):
        names = [f"ner_{precision}", f"parse_{precision}"]
        if all(name in rows for name in (*names, "spacy")):
            both = 1 / sum(1 / speed(name) for name in names)
            found[f"both{suffix}_vs_spacy_speed"] = both / speed("spacy")
    return {
        key: found[key] for key in (*REQUIRED, *(key for key in found if key not in REQUIRED)) if key in found
    }


def as_json(result: Comparison) -> dict[str, Any]:
    """Everything, the figures at the top level."""
    found = figures(result.rows)
    return {
        **{key: round(value, 3) for key, value in found.items()},
        "required": {
            key: {"meaning": meaning, "at_least": bound, "met": found[key] >= bound if key in found else None}
            for key, (bound, meaning) in REQUIRED.items()
        },
        "systems": {name: _as_json(row) for name, row in result.rows.items()},
        "corpus": result.corpus,
        "sentences": result.sentences,
        "tokens": result.tokens,
        "rounds": result.rounds,
        "students": None if result.students is None else asdict(result.students),
        "training": {name: dict(told) for name, told in result.training.items()},
        "machine": dict(result.machine),
        "versions": dict(result.versions),
        "date": result.date,
    }


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "title": row.title,
        "scores": {
            name: round(points, 3) for name, points in asdict(row.scores).items() if points is not None
        },
        "sentences_per_second": round(row.speed.sentences_per_second, 2),
        "tokens_per_second": round(row.speed.tokens_per_second, 1),
        "parameters": row.parameters,
        "bytes": row.size,
        "speed": asdict(row.speed),
    }


def as_markdown(result: Comparison) -> str:
    """The figures, the table and what a reader has to know."""
    found = figures(result.rows)
    lines = [f"# {TITLE}", "", "| figure | measured | at least | met |", "|---|---:|---:|---|"]
    for key, value in found.items():
        shown = f"{value:+.2f}" if "minus" in key else f"{value:.1f} ×"
        bound = REQUIRED[key][0] if key in REQUIRED else None
        met = "" if bound is None else "yes" if value >= bound else "**no**"
        lines.append(f"| `{key}` | {shown} | {'' if bound is None else f'{bound:g}'} | {met} |")
    lines += ["", *_table(result.rows), "", *(f"- {line}" for line in remarks(result))]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, Row]) -> list[str]:
    lines = [
        "| system | entities: F1 | UAS | LAS | LAS, all tokens | sentences/s | words/s | parameters (M) | "
        "on disk (MB) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows.values():
        points = [_points(getattr(row.scores, name)) for name in ("f1", "uas", "las", "las_all")]
        fast = [f"{row.speed.sentences_per_second:,.0f}", f"{row.speed.tokens_per_second:,.0f}"]
        held = "" if row.parameters is None else f"{row.parameters / 1e6:,.2f}"
        disk = "" if row.size is None else f"{row.size / 1e6:,.0f}"
        lines.append("| " + " | ".join([row.title, *points, *fast, held, disk]) + " |")
    return lines


def _points(points: float | None) -> str:
    return "" if points is None else f"{points:.2f}"


def remarks(result: Comparison) -> list[str]:
    """What a reader has to know of how this was measured."""
    said = [
        f"Test split of `{result.corpus}`: {result.sentences:,} sentences, {result.tokens:,} tokens, given "
        "as they are. All were trained on the same training split and chosen on the same dev split.",
        f"One thread; CPU time, the median of {result.rounds} rounds in which all take turns. Every turn is "
        "one call with all sentences, in batches as each system makes them by itself, and begins without any "
        "word remembered from the last one.",
        "UAS and LAS leave out punctuation, as spaCy's own scorer does, where nothing else is said.",
    ]
    said += [note for name, note in NOTES.items() if name in result.rows]
    if result.students is not None:
        how = result.students
        said.append(
            f"The students: one seed ({how.seed}). Their teachers read {how.encoder}, frozen; the students "
            f"learn from the teachers' distributions and read the word vectors {how.vectors}. No other "
            "system has anything from beyond the training split."
        )
    sampled = [row for row in result.rows.values() if row.speed.sentences < result.sentences]
    if sampled:
        said.append(
            f"Speed of {', '.join(row.title for row in sampled)}: on {sampled[0].speed.sentences} sentences "
            "with the same mix of lengths; accuracy on all."
        )
    for row in result.rows.values():
        if row.speed.spread > 1.15:
            said.append(f"{row.title}: the slowest round took {row.speed.spread:.2f} times the fastest.")
    trained = "; ".join(
        f"{name} {told['seconds'] / 60:,.0f} min"
        + (" (after it had been stopped)" if told["resumed"] else "")
        for name, told in result.training.items()
    )
    said.append(f"Training: {trained} (wall-clock; other work may have run on the same cores).")
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    machine = result.machine
    said.append(f"{machine['cpu']}, {machine['cores']} cores, one used; {versions}; {result.date}.")
    return said
