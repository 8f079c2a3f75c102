"""The bundles of a folder: found, and loaded."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import structural_kd
from serve.settings import Settings
from structural_kd import Predictor
from structural_kd.session import DEVICES

ADVICE = "run `make distill` to train and export bundles first"
MANIFEST = "manifest.json"
TASKS = ("ner", "parse")

WARM_UP = (("a",), ("a", "b") * 16, ("a",) * 64)
"""Sentences that a bundle answers before it is in use, so that no request pays for its first runs."""

_VERSION = re.compile(r"v?[0-9][A-Za-z0-9._+-]*")


Load = Callable[[Path, Settings], Predictor]


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Found:
    """A bundle's folder. A `version` is the name of a folder below the model's own, where it has one."""

    name: str
    version: str | None
    folder: Path

    @property
    def id(self) -> str:
        """What a request names: `ner`, or `ner@2` where versions lie side by side."""
        return self.name if self.version is None else f"{self.name}@{self.version}"


def find_bundles(bundles: Path) -> list[Found]:
    """The bundles in a folder: NAME/manifest.json, and versions as NAME/VERSION/manifest.json.

    A version begins with a digit, or with v and one. They come by name, and by version with its numbers taken
    as numbers, so that 10 is after 9. A hidden folder is none, so that a copy can be made in one and renamed.

    Raises StartError where the folder is missing or has none.
    """
    if not bundles.is_dir():
        raise StartError(f"there is no folder {bundles}: {ADVICE}")
    found = [Found(path.parent.name, None, path.parent) for path in bundles.glob(f"*/{MANIFEST}")]
    found += [
        Found(path.parent.parent.name, path.parent.name, path.parent)
        for path in bundles.glob(f"*/*/{MANIFEST}")
        if _VERSION.fullmatch(path.parent.name)
    ]
    found = [each for each in found if not each.name.startswith(".")]
    if not found:
        raise StartError(f"no folder in {bundles} holds a {MANIFEST}: {ADVICE}")
    return sorted(found, key=lambda each: (each.name, _version_order(each.version or "")))


def fingerprint(folder: Path) -> Hashable:
    """What changes when a file of the folder is replaced, written to, added or removed."""
    files = []
    try:
        for path in sorted(folder.rglob("*")):
            status = path.stat()
            files.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
        return (folder.resolve(), *files)
    except OSError:  # removed while it was looked at
        return None


def load_bundle(folder: Path, settings: Settings) -> Predictor:
    """Opens and warms up a bundle; a device that does not work is an error, not a fallback."""
    predictor = structural_kd.load(
        folder,
        threads=settings.threads or 1,
        providers=DEVICES[settings.device],
        batch_tokens=settings.max_batch_tokens,
    )
    predictor.predict(WARM_UP)
    return predictor


def load_checked(folder: Path, settings: Settings, load: Load) -> Predictor:
    """Loads a bundle that can be served as the settings ask. Raises StartError naming the folder."""
    try:
        predictor = load(folder, settings)
    except Exception as error:
        raise StartError(f"the bundle {folder} does not load: {error}") from error
    if predictor.manifest.task not in TASKS:
        raise StartError(f"the bundle {folder} is for {predictor.manifest.task!r}; known tasks are {TASKS}")
    return predictor


def _version_order(version: str) -> list[tuple[int, int, str]]:
    """Runs of digits count as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", version.removeprefix("v"))
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
