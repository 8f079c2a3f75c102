"""A small corpus with entities, trees, tags and lemmas: «Ada of Rome visits Oslo .»"""

from pathlib import Path

NAMES = ("Ada", "Alan", "Grace", "Kurt")
PLACES = ("Rome", "Oslo", "Turin")
VERBS = ("sees", "likes", "visits")
TAGS = {"nsubj": "PROPN", "case": "ADP", "nmod": "PROPN", "root": "VERB", "obj": "PROPN", "punct": "PUNCT"}


def sentence(number: int) -> list[tuple[str, int, str, str]]:
    """Word, head, relation and entity tag of each token."""
    name, place, verb = NAMES[number % 4], PLACES[number % 3], VERBS[number % 3]
    goal = (PLACES + NAMES)[number % 7]
    subject = [(name, 2, "nsubj", "B-PER")]
    if number % 2:
        subject = [(name, 4, "nsubj", "B-PER"), ("of", 3, "case", "O"), (place, 1, "nmod", "B-LOC")]
    at = len(subject) + 1
    tag = "B-LOC" if goal in PLACES else "B-PER"
    return [*subject, (verb, 0, "root", "O"), (goal, at, "obj", tag), (".", at, "punct", "O")]


def write_corpus(folder: Path) -> Path:
    """A folder with 60 train, 12 dev and 12 test sentences in CoNLL-U."""
    folder.mkdir(parents=True)
    for split, first, count in (("train", 0, 60), ("dev", 60, 12), ("test", 72, 12)):
        lines = []
        for number in range(first, first + count):
            for i, (word, head, relation, tag) in enumerate(sentence(number), 1):
                part = TAGS[relation]
                lines.append(
                    f"{i}\t{word}\t{word.lower()}\t{part}\t{part}\t_\t{head}\t{relation}\t_\tNER={tag}"
                )
            lines.append("")
        (folder / f"{split}.conllu").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
