"""What was measured as chaos.json and chaos.md, and whether it is what was aimed for."""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.figures import Findings
from loadtest.machine import machine, now, versions
from loadtest.writing import replace

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
}
PACKAGES = ("fastapi", "gunicorn", "onnxruntime", "onnxruntime-gpu", "schemathesis", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to be; `quick` is the bound of a short run, where it is another."""

    op: str
    bound: float
    quick: float | None = None


TARGETS = {
    "fuzz_requests": Target(">=", 10_000, quick=500),
    "fuzz_5xx": Target("==", 0),
    "fuzz_hung": Target("==", 0),
    "fuzz_by_hand_wrong": Target("==", 0),
    "fuzz_workers_died": Target("==", 0),
    "overload_goodput_share": Target(">=", 0.9),
    "overload_p99_ratio": Target("<=", 2.0),
    "overload_bad_refusals": Target("==", 0),
    "rss_requests": Target(">=", 200_000, quick=10_000),
    "rss_growth": Target("<=", 0.05),
    "kill_recovery_s": Target("<=", 5.0),
    "kill_failed_beyond_held": Target("==", 0),
    "drain_failed": Target("==", 0),
    "drain_bad_exits": Target("==", 0),
    "switch_failed": Target("==", 0),
    "switch_unseen": Target("==", 0),
    "slow_p99_ratio": Target("<=", 1.25),
    "http_single_vs_ideal": Target(">=", 0.8),
    "http_batch_vs_inprocess": Target(">=", 0.85),
}


def judged(findings: Findings, prefix: str, *, quick: bool) -> dict[str, list[Any]]:
    """For each target of a scenario: [op, bound, met]. A figure that is missing misses it."""
    found = {}
    for key, target in TARGETS.items():
        if key.startswith(prefix):
            bound = target.quick if quick and target.quick is not None else target.bound
            figure = findings.figures.get(key)
            met = figure is not None and OPERATORS[target.op](figure, bound)
            found[key] = [target.op, bound, met]
    return found


def with_scenario(
    report: Mapping[str, Any], name: str, prefix: str, findings: Findings, *, seconds: float, quick: bool
) -> dict[str, Any]:
    """The report with a scenario's figures in place of those that it had."""
    others = {key: value for key, value in report.items() if not key.startswith(prefix)}
    kept = {key: value for key, value in report.get("targets", {}).items() if not key.startswith(prefix)}
    about = {
        "date": now(),
        "seconds": round(seconds, 1),
        "quick": quick,
        "prefix": prefix,
        "remarks": findings.remarks,
    }
    return {
        **others,
        **{key: _rounded(value) for key, value in findings.figures.items()},
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
    replace(folder / "chaos.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    replace(folder / "chaos.md", as_markdown(report))


def as_markdown(report: Mapping[str, Any]) -> str:
    """The targets, then each scenario with all its figures, then the conditions."""
    rows = [
        (f"`{key}`", _shown(report.get(key)), f"{op} {bound:g}", "yes" if met else "**no**")
        for key, (op, bound, met) in report["targets"].items()
    ]
    lines = ["# What the server withstands", "", *_table(("", "figure", "target", "met"), rows)]
    for name, about in report["scenarios"].items():
        length = f"{about['seconds']:,.0f} s" + (", a quick run" if about["quick"] else "")
        lines += ["", f"## {name}", "", f"{about['date']}, {length}.", ""]
        lines += [f"- {remark}" for remark in about["remarks"]]
        lines += [""] if about["remarks"] else []
        figures = [(f"`{key}`", _shown(report[key])) for key in report if key.startswith(about["prefix"])]
        lines += _table(("", "figure"), figures)
    on = report["machine"]
    names = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines += ["", f"{on['cpu']}, {on['cores']} cores, {on['memory_gb']} GB, {on['system']}; {names}."]
    return "\n".join(lines) + "\n"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *escaped)]
