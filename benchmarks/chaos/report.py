"""What was measured as chaos.json and chaos.md, and whether it is what was aimed for."""

import json
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chaos.figures import Findings
from loadtest.machine import machine, now, versions
from loadtest.markdown import bullets, table
from structural_kd.files import write_whole

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}
PACKAGES = ("fastapi", "gunicorn", "onnxruntime", "onnxruntime-gpu", "schemathesis", "uvicorn", "uvloop")


class Goal(NamedTuple):
    """What a figure has to be; `quick` is the bound of a short run, where it is another."""

    op: str
    bound: float
    quick: float | None = None


GOALS = {
    "fuzz_requests": Goal(">=", 10_000, quick=500),
    "fuzz_5xx": Goal("==", 0),
    "fuzz_hung": Goal("==", 0),
    "fuzz_by_hand_wrong": Goal("==", 0),
    "fuzz_workers_died": Goal("==", 0),
    "overload_goodput_share": Goal(">=", 0.9),
    "overload_p99_ratio": Goal("<=", 2.0),
    "overload_bad_refusals": Goal("==", 0),
    "rss_requests": Goal(">=", 200_000, quick=10_000),
    "rss_growth": Goal("<=", 0.05),
    "kill_recovery_s": Goal("<=", 5.0),
    "kill_failed_beyond_held": Goal("==", 0),
    "drain_failed": Goal("==", 0),
    "drain_bad_exits": Goal("==", 0),
    "switch_failed": Goal("==", 0),
    "switch_unseen": Goal("==", 0),
    "slow_p99_ratio": Goal("<=", 1.25),
    "http_single_vs_ideal": Goal(">=", 0.8),
    "http_batch_vs_inprocess": Goal(">=", 0.85),
}


def judged(findings: Findings, prefix: str, *, quick: bool) -> dict[str, list[Any]]:
    """For each goal of a scenario: [op, bound, met]. A figure that is missing misses it."""
    found = {}
    for key, goal in GOALS.items():
        if key.startswith(prefix):
            bound = goal.quick if quick and goal.quick is not None else goal.bound
            figure = findings.figures.get(key)
            met = figure is not None and OPERATORS[goal.op](figure, bound)
            found[key] = [goal.op, bound, met]
    return found


def with_scenario(
    report: Mapping[str, Any], name: str, prefix: str, findings: Findings, *, seconds: float, quick: bool
) -> dict[str, Any]:
    """The report with a scenario's figures in place of those that it had."""
    others = {key: value for key, value in report.items() if not key.startswith(prefix)}
    kept = {key: value for key, value in report.get("targets", {}).items() if not key.startswith(prefix)}
    rounded = {
        key: round(value, 4) if isinstance(value, float) else value for key, value in findings.figures.items()
    }
    about = {
        "date": now(),
        "seconds": round(seconds, 1),
        "quick": quick,
        "prefix": prefix,
        "remarks": findings.remarks,
    }
    return {
        **others,
        **rounded,
        "targets": {**kept, **judged(findings, prefix, quick=quick)},
        "scenarios": {**report.get("scenarios", {}), name: about},
        "machine": machine(),
        "date": now(),
        "versions": versions(PACKAGES),
    }


def missed(report: Mapping[str, Any]) -> list[str]:
    """The targets that were not met, in words."""
    return [
        f"{key} is {report.get(key)}, the target is {op} {bound:g}"
        for key, (op, bound, met) in report.get("targets", {}).items()
        if not met
    ]


def read(folder: Path) -> dict[str, Any]:
    """The report that is there already; empty where there is none. Raises ValueError where it is no JSON."""
    path = folder / "chaos.json"
    if not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """chaos.json and chaos.md."""
    write_whole(folder / "chaos.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_whole(folder / "chaos.md", as_markdown(report))


def as_markdown(report: Mapping[str, Any]) -> str:
    """The targets, then each scenario with all its figures, then the conditions."""
    rows = [
        (f"`{key}`", _shown(report.get(key)), f"{op} {bound:g}", "yes" if met else "**no**")
        for key, (op, bound, met) in report["targets"].items()
    ]
    parts = ["# What the server withstands", table(("", "figure", "target", "met"), rows)]
    for name, about in report["scenarios"].items():
        length = f"{about['seconds']:,.0f} s" + (", a quick run" if about["quick"] else "")
        figures = [(f"`{key}`", _shown(report[key])) for key in report if key.startswith(about["prefix"])]
        parts += [f"## {name}", f"{about['date']}, {length}."]
        parts += [bullets(about["remarks"])] if about["remarks"] else []
        parts.append(table(("", "figure"), figures))
    on = report["machine"]
    names = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    parts.append(f"{on['cpu']}, {on['cores']} cores, {on['memory_gb']} GB, {on['system']}; {names}.")
    return "\n\n".join(parts) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
