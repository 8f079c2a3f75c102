"""What a load test has to know of a bundle, read from its manifest.json."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BundleError(ValueError):
    """A bundle cannot be tested; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model of the comparison."""

    folder: Path
    name: str
    task: str  # "ner" or "parse": also the server's path
    parameters: int

    @property
    def served_as(self) -> str:
        """The name of the folder that the server sees, by which it then answers."""
        return re.sub(r"[^\w.-]", "-", self.name)


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`; raises BundleError where its manifest is missing or lacks what is needed."""
    path = folder / "manifest.json"
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file: train and export first (make distill)") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a JSON manifest: {error}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: expected a JSON object")
    task, name, parameters = (manifest.get(key) for key in ("task", "name", "parameters"))
    if task not in ("ner", "parse"):
        raise BundleError(f"{path}: field task: expected ner or parse, not {task!r}")
    if not isinstance(name, str) or not name:
        raise BundleError(f"{path}: field name: expected a non-empty string, not {name!r}")
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise BundleError(f"{path}: field parameters: expected a positive number, not {parameters!r}")
    return Bundle(folder=folder, name=name, task=task, parameters=parameters)
