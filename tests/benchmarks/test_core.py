import json
from pathlib import Path

import pytest
import torch

from benchmarks.core import ChainScores, chain, loop, merge, table, take_turns


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


def test_the_plain_loop_answers_as_the_chain_does_at_every_length() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = ChainScores(
        torch.randn(4, 6, 5, generator=generator),
        torch.randn(5, 5, generator=generator),
        torch.tensor([6, 1, 4, 2]),
    )
    torch.testing.assert_close(loop(scores), chain(scores), rtol=1e-4, atol=1e-5)


def test_every_contestant_has_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.core.TURN_SECONDS", 0.002)
    calls = {"one": 0, "other": 0}

    def run(name: str) -> None:
        calls[name] += 1
        sum(range(20_000))

    seconds = take_turns({name: lambda name=name: run(name) for name in calls})  # type: ignore[misc]
    assert set(seconds) == set(calls)
    assert all(value > 0 for value in seconds.values())
    assert all(count > 1 for count in calls.values())


def test_the_table_says_what_is_met_and_what_is_missed() -> None:
    lines = table({"chain_vs_loop": 1.5, "spanset_vs_chain": 2.0, "cores": 2}).splitlines()
    assert "at least 2: MISSED" in lines[0]
    assert "under 3: met" in lines[1]
    assert lines[2].split() == ["cores", "2"]
