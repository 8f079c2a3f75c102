"""What both parts of ``make bench`` share: timing in turns, and the file that they write."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from loadtest.machine import machine, now
from structural_kd.files import write_whole

REPORT = Path("reports/bench.json")

Bounds = Mapping[str, tuple[str, float]]
"""By figure: "at least", "under" or "at most", and how much."""


def cpu_seconds(run: Callable[[], object], calls: int = 1) -> float:
    """CPU seconds of a call; other processes on the machine lengthen them less than the clock's."""
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


def take_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, *, turn_seconds: float = 0
) -> dict[str, float]:
    """Median CPU seconds of a call of each, over rounds in which all take turns.

    So whatever else the machine does hits all of them. Each is called once before.

    Args:
        turn_seconds: a turn is as many calls as fit into it, at least one. Unless it is 0 there is one more
            call before each turn, which pays for the memory that the contestant before gave back.
    """
    calls = dict.fromkeys(contestants, 1)
    for name, run in contestants.items():
        run()
        if turn_seconds:
            calls[name] = max(1, round(turn_seconds / cpu_seconds(run)))
    turns: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            if turn_seconds:
                run()
            turns[name].append(cpu_seconds(run, calls[name]))
    return {name: median(seconds) for name, seconds in turns.items()}


def conditions() -> dict[str, Any]:
    """The machine and the date."""
    return {**machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "date": now()}


def merge(path: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Write measured figures into a JSON file; figures of other keys in it stay.

    Returns:
        All figures of the file.

    Raises:
        ValueError: the file is there and is no JSON object.
    """
    known: Any = {}
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); delete it to have it written anew") from None
        if not isinstance(known, dict):
            raise ValueError(f"{path}: not a JSON object; delete it to have it written anew")
    merged = known | measured
    write_whole(path, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return merged


def table(figures: Mapping[str, Any], required: Bounds) -> str:
    """The figures, a line each, and whether the required ones are met."""
    lines = []
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        if name in required:
            word, bound = required[name]
            met = {"at least": value >= bound, "under": value < bound, "at most": value <= bound}[word]
            shown = f"{shown:<10} {word} {bound:g}: {'met' if met else 'MISSED'}"
        lines.append(f"{name:<28} {shown}")
    return "\n".join(lines)
