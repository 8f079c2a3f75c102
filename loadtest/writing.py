"""Files that are written whole or not at all, and rows that are added to one while a run goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a line of JSON, which is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
