"""Targets, the merging of reports, and the command's exit status."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import __main__, report
from benchmarks.chaos.__main__ import SCENARIOS, Scenario, run
from benchmarks.chaos.figures import Findings, ScenarioError
from benchmarks.chaos.setup import Setup
from loadtest.server import PROJECT

GOOD_DRAIN = Findings({"drain_failed": 0, "drain_bad_exits": 0, "drain_outcomes": {"200": 12}})


@pytest.fixture(autouse=True)
def no_look_at_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "LOOK_SECONDS", 0.01)


def options(tmp_path: Path, *only: str) -> argparse.Namespace:
    texts = tmp_path / "texts"
    texts.write_text("Ada runs\n", encoding="utf-8")
    return argparse.Namespace(
        bundles=tmp_path, texts=texts, out=tmp_path / "reports", only=list(only), quick=False
    )


def scenario(figures: dict[str, Any], prefix: str) -> Scenario:
    return Scenario(lambda setup: Findings(figures), prefix)


def added(before: dict[str, Any], findings: Findings, **changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {"seconds": 12.345, "quick": False, **changes}
    return report.with_scenario(before, "drain", "drain_", findings, **whole)


def test_a_target_is_met_at_its_bound_and_a_missing_figure_misses_it() -> None:
    def met(key: str, **figures: Any) -> bool:
        judged = report.judged(Findings(figures), key, quick=False)
        result: bool = judged[key][2]
        return result

    assert met("overload_goodput_share", overload_goodput_share=0.9)
    assert not met("overload_goodput_share", overload_goodput_share=0.89)
    assert met("slow_p99_ratio", slow_p99_ratio=1.25)
    assert not met("slow_p99_ratio", slow_p99_ratio=1.26)
    assert met("switch_failed", switch_failed=0)
    assert not met("switch_failed", switch_failed=1)
    assert not met("kill_recovery_s", kill_recovery_s=None)
    assert not met("kill_recovery_s")


def test_a_quick_run_has_smaller_counts_to_reach_and_the_same_other_targets() -> None:
    findings = Findings({"fuzz_requests": 600, "fuzz_5xx": 1})
    assert report.judged(findings, "fuzz_", quick=True)["fuzz_requests"] == [">=", 500, True]
    assert report.judged(findings, "fuzz_", quick=False)["fuzz_requests"] == [">=", 10_000, False]
    assert report.judged(findings, "fuzz_", quick=True)["fuzz_5xx"] == ["==", 0, False]


def test_a_scenario_replaces_its_own_figures_and_leaves_the_others() -> None:
    old = added({}, Findings({"drain_failed": 7, "drain_old": 1}))
    old |= {"kill_recovery_s": 2.0}
    old["targets"] |= {"kill_recovery_s": ["<=", 5.0, True]}
    old["scenarios"] |= {"kill": {"prefix": "kill_"}}
    new = added(old, GOOD_DRAIN)
    assert "drain_old" not in new
    assert (new["drain_failed"], new["kill_recovery_s"]) == (0, 2.0)
    assert new["targets"]["drain_failed"] == ["==", 0, True]
    assert new["targets"]["kill_recovery_s"] == ["<=", 5.0, True]
    assert new["scenarios"].keys() == {"drain", "kill"}
    assert old["drain_failed"] == 7


def test_a_report_says_machine_date_versions_and_how_long_each_scenario_took() -> None:
    found = added({}, GOOD_DRAIN)
    assert found["machine"]["cores"] >= 1
    assert found["versions"]["uvicorn"]
    assert found["date"]
    assert found["scenarios"]["drain"]["seconds"] == 12.3
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_page_shows_every_figure_and_which_targets_were_missed() -> None:
    bad = Findings({"drain_failed": 3, "drain_bad_exits": 0, "drain_failures": {"reset": 3}}, ["a remark"])
    text = " ".join(report.as_markdown(added({}, bad, quick=True)).split())
    assert "| `drain_failed` | 3 | == 0 | **no** |" in text
    assert "| `drain_bad_exits` | 0 | == 0 | yes |" in text
    assert "| `drain_failures` | reset: 3 |" in text
    assert "- a remark" in text
    assert "12 s, a quick run" in text


def test_every_target_belongs_to_one_scenario() -> None:
    prefixes = [each.prefix for each in SCENARIOS.values()]
    for key in report.GOALS:
        assert len([prefix for prefix in prefixes if key.startswith(prefix)]) == 1, key


def test_the_exit_status_says_met_missed_or_not_measured(tmp_path: Path) -> None:
    def broken(setup: Setup) -> Findings:
        raise ScenarioError("no server")

    good = {"drain": scenario(GOOD_DRAIN.figures, "drain_")}
    missed = {**good, "kill": scenario({"kill_recovery_s": 9.0, "kill_failed_beyond_held": 0}, "kill_")}
    unmeasured = {"fuzz": Scenario(broken, "fuzz_"), **good}
    assert run(options(tmp_path), good) == 0
    assert run(options(tmp_path), missed) == 1
    assert run(options(tmp_path), unmeasured) == 2
    # The scenario after the one that could not be measured was.
    found = report.read(tmp_path / "reports")
    assert found["scenarios"].keys() == {"drain"}


def test_choosing_scenarios_keeps_the_report_and_choosing_none_begins_a_new_one(tmp_path: Path) -> None:
    both = {
        "drain": scenario(GOOD_DRAIN.figures, "drain_"),
        "kill": scenario({"kill_recovery_s": 1.0, "kill_failed_beyond_held": 0}, "kill_"),
    }
    assert run(options(tmp_path, "kill"), both) == 0
    assert run(options(tmp_path, "drain"), both) == 0
    assert report.read(tmp_path / "reports")["scenarios"].keys() == {"drain", "kill"}
    assert run(options(tmp_path), {"drain": both["drain"]}) == 0
    assert report.read(tmp_path / "reports")["scenarios"].keys() == {"drain"}
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"chaos.json", "chaos.md"}


def test_a_target_missed_earlier_is_still_missed_when_another_scenario_is_chosen(tmp_path: Path) -> None:
    both = {
        "drain": scenario({"drain_failed": 1, "drain_bad_exits": 0}, "drain_"),
        "kill": scenario({"kill_recovery_s": 1.0, "kill_failed_beyond_held": 0}, "kill_"),
    }
    assert run(options(tmp_path, "drain"), both) == 1
    assert run(options(tmp_path, "kill"), both) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "flood"], "invalid choice: 'flood'"),
        (["--texts", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--only", "kill", "--bundles", "nowhere", "--texts", "README.md"], "make distill"),
    ],
)
def test_a_missing_input_is_an_error_that_names_the_remedy(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--out", str(tmp_path), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_scenarios_can_be_listed_without_a_server() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--list"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(SCENARIOS)
    assert all(len(line.split()) > 3 for line in done.stdout.splitlines())
