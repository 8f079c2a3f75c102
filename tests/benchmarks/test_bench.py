"""Timing in turns, and the file of figures."""

import json
import time
from pathlib import Path

import pytest

from benchmarks.bench import merge, table, take_turns


def test_measured_figures_replace_old_ones_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "reports" / "bench.json"
    merge(file, {"chain_ms": 3.0, "served_ms": 7.0})
    merged = merge(file, {"chain_ms": 2.0, "date": "2026-01-01"})
    assert merged == {"chain_ms": 2.0, "served_ms": 7.0, "date": "2026-01-01"}
    assert json.loads(file.read_text(encoding="utf-8")) == merged
    assert [path.name for path in file.parent.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_file_that_is_no_json_object_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench\.json: not .*delete it"):
        merge(file, {"chain_ms": 2.0})
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("turn_seconds", [0, 0.002])
def test_contestants_take_turns_and_the_slower_one_has_the_larger_median(turn_seconds: float) -> None:
    order = []

    def busy(name: str, seconds: float) -> None:
        order.append(name)
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    contestants = {"a": lambda: busy("a", 0.001), "b": lambda: busy("b", 0.01)}
    seconds = take_turns(contestants, 3, turn_seconds=turn_seconds)
    assert seconds["b"] > seconds["a"] > 0
    if not turn_seconds:
        assert order == ["a", "b"] * 4


def test_the_table_has_met_and_missed_figures() -> None:
    required = {"slow": ("at least", 2.0), "fast": ("under", 3.0)}
    lines = table({"slow": 1.5, "fast": 2.0, "cores": 2}, required).splitlines()
    assert "at least 2: MISSED" in lines[0]
    assert "under 3: met" in lines[1]
    assert lines[2].split() == ["cores", "2"]
