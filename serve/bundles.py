"""The bundles of a folder: found, and loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import bundle
from bundle.session import DEVICES
from serve.settings import Settings

ADVICE = "run `make distill` to train and export bundles first"
TASKS = ("ner", "parse")


class Manifest(Protocol):
    """What the server reads of a bundle's manifest."""

    @property
    def task(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def scores(self) -> Any: ...


class Predictor(Protocol):
    """What the server needs of a loaded bundle; `bundle.Predictor` is one."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def providers(self) -> Sequence[str]: ...
    def predict(self, sentences: Sequence[Sequence[str]]) -> Sequence[Any]: ...


Load = Callable[[Path, Settings], Predictor]


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def bundle_folders(bundles: Path) -> list[Path]:
    """The sub-folders that hold a manifest, in the order of their names.

    Raises StartError where the folder is missing or has none.
    """
    if not bundles.is_dir():
        raise StartError(f"there is no folder {bundles}: {ADVICE}")
    folders = sorted(manifest.parent for manifest in bundles.glob("*/manifest.json"))
    if not folders:
        raise StartError(f"no folder in {bundles} holds a manifest.json: {ADVICE}")
    return folders


def load_bundle(folder: Path, settings: Settings) -> Predictor:
    """Opens a bundle with ONNX Runtime; a device that does not work is an error, not a fallback."""
    return bundle.load(folder, threads=settings.threads, providers=DEVICES[settings.device])


def load_checked(folder: Path, settings: Settings, load: Load) -> Predictor:
    """Loads a bundle that can be served as the settings ask. Raises StartError naming the folder."""
    try:
        predictor = load(folder, settings)
    except Exception as error:
        raise StartError(f"the bundle {folder} does not load: {error}") from error
    if predictor.manifest.task not in TASKS:
        raise StartError(f"the bundle {folder} is for {predictor.manifest.task!r}; known tasks are {TASKS}")
    return predictor
