"""python -m benchmarks.chaos: what the server withstands, scenario by scenario, with figures and targets.

Each scenario starts the real server over real bundles, does its worst and writes what it found into
chaos.json and chaos.md. Linux only: it pins processes to cores.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Never

from benchmarks.chaos import report
from benchmarks.chaos.figures import Findings, ScenarioError
from benchmarks.chaos.scenarios import drain, fuzz, http_cost, kill, memory, overload, slow, switch
from benchmarks.chaos.setup import Setup, progress
from loadtest.processes import busy_cores
from loadtest.sentences import read_sentences
from loadtest.server import ServerError
from loadtest.systems import UnfitBundleError

LOOK_SECONDS = 1.0  # at the machine, before each scenario
BUSY_CORES = 0.1  # other work beyond this disturbs the figures

EXIT_STATUSES = """\
Exit status: 0 all targets met, 1 some missed (it says which), 2 something could not be measured (it says
what), 130 stopped by Ctrl-C. What was measured until then is in the report.
"""


class Scenario(NamedTuple):
    """How to measure it, and how the keys of its figures begin."""

    measure: Callable[[Setup], Findings]
    prefix: str

    @property
    def about(self) -> str:
        """The first line of its module."""
        return (sys.modules[self.measure.__module__].__doc__ or "").partition("\n")[0]


SCENARIOS: Mapping[str, Scenario] = {
    "fuzz": Scenario(fuzz.measure, "fuzz_"),
    "overload": Scenario(overload.measure, "overload_"),
    "memory": Scenario(memory.measure, "rss_"),
    "kill": Scenario(kill.measure, "kill_"),
    "drain": Scenario(drain.measure, "drain_"),
    "switch": Scenario(switch.measure, "switch_"),
    "slow": Scenario(slow.measure, "slow_"),
    "http_cost": Scenario(http_cost.measure, "http_"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.list:
        print(_listed())
        return 0
    signal.signal(signal.SIGTERM, _terminate)  # so that finally clauses stop the servers
    try:
        return run(options)
    except ValueError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("chaos: stopped; scenarios that had ended are in the report", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, scenarios: Mapping[str, Scenario] = SCENARIOS) -> int:
    """Measures the chosen scenarios, writing the report after each; the exit status.

    Raises:
        ValueError: the texts or the report that is there cannot be read.
    """
    setup = Setup(options.bundles, options.texts, read_sentences(options.texts), options.quick)
    found = report.read(options.out) if options.only else {}
    unmeasured = 0
    for name in options.only or scenarios:
        scenario = scenarios[name]
        print(f"{name}: {scenario.about}", flush=True)
        busy, start = busy_cores(LOOK_SECONDS), time.monotonic()
        try:
            findings = scenario.measure(setup)
        except (UnfitBundleError, ServerError, ScenarioError) as error:
            print(f"chaos: {name}: not measured: {error}", file=sys.stderr)
            unmeasured += 1
            continue
        seconds = time.monotonic() - start
        if busy > BUSY_CORES:
            findings.remarks.append(f"other work kept {busy:.1f} cores busy when it began")
        found = report.with_scenario(
            found, name, scenario.prefix, findings, seconds=seconds, quick=options.quick
        )
        report.write(options.out, found)
        for key, (op, bound, met) in found["targets"].items():
            if key.startswith(scenario.prefix):
                progress(f"{key} = {found.get(key)}, target {op} {bound:g}: {'met' if met else 'MISSED'}")
        for remark in findings.remarks:
            progress(f"remark: {remark}")
    if found:
        print(f"written to {options.out}/chaos.json and chaos.md")
    failures = report.missed(found)
    for failure in failures:
        print(f"chaos: {failure}", file=sys.stderr)
    return 2 if unmeasured else 1 if failures else 0


def _listed() -> str:
    return "\n".join(f"{name:<10} {scenario.about}" for name, scenario in SCENARIOS.items())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""\
scenarios:
{_listed()}

examples:
  python -m benchmarks.chaos --quick                    a short look at everything
  python -m benchmarks.chaos --only drain switch        two scenarios again; the report keeps the others

{EXIT_STATUSES}""",
    )
    parser.add_argument(
        "--bundles", type=Path, default=Path("bundles"), help="folder with ner and parse (bundles)"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        default=Path("runs/quickstart/test.txt"),
        help="UTF-8 text, one sentence a line, tokens split by spaces (runs/quickstart/test.txt)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (reports)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(SCENARIOS),
        metavar="NAME",
        help="only these; the report keeps the others",
    )
    parser.add_argument("--quick", action="store_true", help="shorter, rougher, with smaller counts")
    parser.add_argument("--list", action="store_true", help="name the scenarios, and end")
    return parser.parse_args(arguments)


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
