"""The comparison as JSON and Markdown: required figures, a table, and how it was measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from benchmarks.peers.measure import Scores, Speed

TITLE = "Our students beside spaCy, UDPipe and CRFsuite"

ORDER = (
    "ner_fp32", "ner_int8", "ner_teacher", "parse_fp32", "parse_int8", "parse_teacher",
    "spacy", "spacy_ner", "spacy_parse", "udpipe", "crfsuite",
)  # fmt: skip

NOTES: Mapping[str, str] = {
    "spacy": "spaCy: the configuration of `spacy init config --pipeline ner,parser --optimize efficiency`, "
    "which has no pretrained vectors.",
    "udpipe": "UDPipe: its library's defaults, except 5 iterations of the tagger instead of 20; its parser "
    "needs the tagger, which is timed with it.",
    "crfsuite": "CRFsuite stands in for NameTag, whose Python package holds no trainer.",
}
"""Settings of systems, for the reader of the report."""

REQUIRED: Mapping[str, tuple[float, str]] = {
    "f1_minus_spacy": (5, "entities: points of F1 of the student in fp32 above spaCy"),
    "las_minus_spacy": (1, "trees: points of LAS of the student in fp32 above spaCy, without punctuation"),
    "ner_vs_spacy_speed": (6, "entities: speed of the student in fp32 against spaCy's pipeline of both"),
    "parse_vs_spacy_speed": (6, "trees: speed of the student in fp32 against spaCy's pipeline of both"),
}
"""The least value of each, and its meaning."""


@dataclass(frozen=True)
class Measured:
    """One system: its name in tables, its numbers in memory and bytes on disk, accuracy and speed."""

    title: str
    parameters: int | None
    size: int | None
    scores: Scores
    speed: Speed


@dataclass(frozen=True)
class PeerResults:
    """All systems by name, and under which conditions they were measured.

    students: their seed, encoder and vectors; None where they are not among the systems.
    training: for each trainer the content of its stamp.
    """

    systems: Mapping[str, Measured]
    corpus: str
    sentences: int
    tokens: int
    rounds: int
    students: Mapping[str, Any] | None
    training: Mapping[str, Mapping[str, Any]]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    date: str


def figures(systems: Mapping[str, Measured]) -> dict[str, float]:
    """The figures of `REQUIRED` first, then other ways to compare; figures of missing systems are left out.

    ``*_vs_spacy_alone``: against spaCy with that one component. ``both_vs_spacy_speed``: entities and trees,
    by two students one after the other, against spaCy's pipeline of both.
    """
    speed = {name: row.speed.tokens_per_second for name, row in systems.items()}
    found: dict[str, float] = {}
    if "spacy" not in systems:
        return found
    for precision, suffix in (("fp32", ""), ("int8", "_int8")):
        for task, metric in (("ner", "f1"), ("parse", "las")):
            name = f"{task}_{precision}"
            if name in systems:
                ours, theirs = (getattr(systems[each].scores, metric) for each in (name, "spacy"))
                found[f"{metric}{suffix}_minus_spacy"] = ours - theirs
                found[f"{task}{suffix}_vs_spacy_speed"] = speed[name] / speed["spacy"]
                if f"spacy_{task}" in systems:
                    found[f"{task}{suffix}_vs_spacy_alone"] = speed[name] / speed[f"spacy_{task}"]
        names = [f"ner_{precision}", f"parse_{precision}"]
        if all(name in systems for name in names):
            both = 1 / sum(1 / speed[name] for name in names)
            found[f"both{suffix}_vs_spacy_speed"] = both / speed["spacy"]
    return {key: found[key] for key in dict.fromkeys([*REQUIRED, *found]) if key in found}


def as_json(result: PeerResults) -> dict[str, Any]:
    """Everything, the figures at the top level."""
    found = figures(result.systems)
    systems = {
        name: {
            "title": row.title,
            "scores": {
                key: round(points, 3) for key, points in asdict(row.scores).items() if points is not None
            },
            "sentences_per_second": round(row.speed.sentences_per_second, 2),
            "tokens_per_second": round(row.speed.tokens_per_second, 1),
            "parameters": row.parameters,
            "bytes": row.size,
            "speed": asdict(row.speed),
        }
        for name, row in result.systems.items()
    }
    required = {
        key: {"meaning": meaning, "at_least": bound, "met": found[key] >= bound if key in found else None}
        for key, (bound, meaning) in REQUIRED.items()
    }
    rounded = {key: round(value, 3) for key, value in found.items()}
    return {**rounded, "required": required, **asdict(result), "systems": systems}


def as_markdown(result: PeerResults) -> str:
    """The figures, the table and how it was measured."""
    compared = []
    for key, value in figures(result.systems).items():
        shown = f"{value:+.2f}" if "minus" in key else f"{value:.1f} ×"
        bound, met = "", ""
        if key in REQUIRED:
            least, _ = REQUIRED[key]
            bound, met = f"{least:g}", "yes" if value >= least else "**no**"
        compared.append([f"`{key}`", shown, bound, met])
    headers = ["system", "entities: F1", "UAS", "LAS", "LAS, all tokens", "sentences/s", "words/s"]
    headers += ["parameters (M)", "on disk (MB)"]
    systems = [
        [
            row.title,
            *(_shown(getattr(row.scores, name), ".2f") for name in ("f1", "uas", "las", "las_all")),
            _shown(row.speed.sentences_per_second, ",.0f"),
            _shown(row.speed.tokens_per_second, ",.0f"),
            _shown(row.parameters, ",.2f", 1e6),
            _shown(row.size, ",.0f", 1e6),
        ]
        for row in result.systems.values()
    ]
    parts = [
        f"# {TITLE}",
        _table(["figure", "measured", "at least", "met"], compared),
        _table(headers, systems),
        "\n".join(f"- {line}" for line in remarks(result)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headers: list[str], rows: list[list[str]]) -> str:
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)


def _shown(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)


def remarks(result: PeerResults) -> list[str]:
    """How this was measured, a sentence or two each."""
    lines = [
        f"Test split of `{result.corpus}`: {result.sentences:,} sentences, {result.tokens:,} tokens, given "
        "as they are. All were trained on the same training split and chosen on the same dev split.",
        f"One thread; CPU time, the median of {result.rounds} rounds in which all take turns. Every turn is "
        "one call with all sentences, in batches of each system's own making, and begins with no word "
        "remembered from the turn before.",
        "UAS and LAS leave out punctuation, as spaCy's own scorer does, unless the column says otherwise.",
    ]
    lines += [note for name, note in NOTES.items() if name in result.systems]
    if result.students is not None:
        students = result.students
        lines.append(
            f"The students: one seed ({students['seed']}). Their teachers read {students['encoder']}, "
            "frozen; the students learn from the teachers' distributions and read the word vectors "
            f"{students['vectors']}. No other system has anything from beyond the training split."
        )
    sampled = [row for row in result.systems.values() if row.speed.sentences < result.sentences]
    if sampled:
        lines.append(
            f"Speed of {', '.join(row.title for row in sampled)}: on {sampled[0].speed.sentences} sentences "
            "with the same mix of lengths; accuracy on all."
        )
    for row in result.systems.values():
        if row.speed.spread > 1.15:
            lines.append(f"{row.title}: the slowest round took {row.speed.spread:.2f} times the fastest.")
    trained = "; ".join(
        f"{name} {stamp['seconds'] / 60:,.0f} min" + " (after it had been stopped)" * stamp["resumed"]
        for name, stamp in result.training.items()
    )
    lines.append(f"Training: {trained} (wall-clock; other work may have run on the same cores).")
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    cpu, cores = result.machine["cpu"], result.machine["cores"]
    return [*lines, f"{cpu}, {cores} cores, one used; {versions}; {result.date}."]
