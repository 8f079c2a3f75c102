"""The examples in docstrings do what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("structural_kd", "train", "export", "serve", "loadtest", "benchmarks")
PATCHES_SOCKETS = re.compile(r"^(?:import|from) (?:locust|gevent)", re.MULTILINE)


def modules_with_examples() -> list[str]:
    """By their dotted names; not those that patch the sockets of a whole process when they are imported."""
    found = []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if ">>> " in text and not PATCHES_SOCKETS.search(text):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
