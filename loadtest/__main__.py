"""python -m loadtest: students and teachers behind the same server, pressed in turn, as the paper's table 7.

For each task and each system it starts the server with that bundle alone, pinned to its own core, checks that
the intended model answers, and measures, with Locust on the other cores: a closed loop with one sentence a
request, one with 32, and latencies while requests arrive at random at shares of the capacity found. The
systems take turns, round by round. Linux only: it pins processes to cores and reads /proc.
"""

import argparse
import json
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, Never

from loadtest import figures, page, report
from loadtest.bundles import TASKS, BundleError
from loadtest.check import CheckError
from loadtest.comparison import Setting, compare
from loadtest.cores import CoresError, shared_out
from loadtest.machine import machine, now, versions
from loadtest.order import evenly_mixed
from loadtest.plan import Plan, full_plan, quick_plan
from loadtest.pressing import GeneratorError, generating
from loadtest.results import Conditions, Result, result_of
from loadtest.sentences import SentencesError, read_sentences
from loadtest.server import ServerError
from loadtest.systems import KINDS, Contestant, contestants
from loadtest.writing import append_row, replace

PACKAGES = ("fastapi", "gunicorn", "locust", "numpy", "onnxruntime", "onnxruntime-gpu", "uvicorn")

EPILOG = """\
examples:
  everything, with the bundles in their usual places (half an hour and more):
    python -m loadtest
  a look in two minutes:
    python -m loadtest --quick
  the student alone, in one task:
    python -m loadtest --task ner --systems student
  the same measurements as a new report, judged anew:
    python -m loadtest --redraw reports/table7.json
  a teacher of your own against a student of your own:
    python -m loadtest --systems student teacher --student my/student --teacher my/teacher

It writes table7.json, .md, .html and .svg into --out, and the rows of each loop as soon as it is over into
--rows, where they stay if a later one cannot be measured.
Exit status: 0 all requests answered, 1 some failed or the generator was the bottleneck (the report says so at
its top), 2 something could not be measured, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""


FULL_ONLY = (
    "rounds", "warm_up", "duration", "requests", "longest", "shares", "step", "step_requests", "longest_step",
)  # fmt: skip
"""Options that a quick run decides by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _terminate)  # so that finally clauses stop the servers
    if options.redraw:
        return redrawn(options.redraw, options.out)
    try:
        chosen = contestants(options.systems, options.given, options.task, run=options.texts.parent)
        sentences = read_sentences(options.texts)
        result = measured(options, chosen, sentences)
    except (BundleError, SentencesError, CoresError, ServerError, CheckError, GeneratorError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2
    except (OSError, HTTPException) as error:  # a command that is not there, a folder that is read-only
        print(f"loadtest: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"loadtest: stopped; no report was written, {options.rows} has the rows so far", file=sys.stderr
        )
        return 130
    return reported(result, options.out)


def measured(
    options: argparse.Namespace, chosen: Sequence[Contestant], sentences: Sequence[list[str]]
) -> Result:
    """Runs the whole load test; what it measured stays in the file of rows, whatever happens later."""
    began = now()
    plan = plan_of(options)
    server_cores, generator_cores = shared_out(options.server_cores, options.workers * options.threads)

    def keep(row: dict[str, Any]) -> None:
        append_row(options.rows, {"run": began, **row})

    setting = Setting(
        plan=plan,
        texts=str(options.texts.resolve()),
        kind=options.input,
        sample=evenly_mixed(sentences)[: plan.checked_sentences],
        command=options.server_command,
        cores=set(server_cores),
        workers=options.workers,
        threads=options.threads,
        start_timeout=options.start_timeout,
        say=_say,
        keep=keep,
    )
    with generating(set(generator_cores)) as generator:
        compared = compare(chosen, generator, setting)
    conditions = Conditions(
        quick=options.quick,
        rounds=plan.rounds,
        server_cores=server_cores,
        generator_cores=generator_cores,
        workers=options.workers,
        threads=options.threads,
        sentences=f"{options.texts}, as {'tokens' if options.input == 'tokens' else 'raw text'}",
        sentence_count=len(sentences),
        mean_tokens=sum(map(len, sentences)) / len(sentences),
        date=began,
        machine=machine(),
        versions=versions(PACKAGES),
        settings=compared.settings,
    )
    return Result(compared.systems, conditions, compared.skipped)


def reported(result: Result, out: Path) -> int:
    """Writes the reports and prints the table; the exit status."""
    markdown = report.as_markdown(result)
    files = {
        "table7.json": json.dumps(report.as_json(result), indent=2, ensure_ascii=False) + "\n",
        "table7.md": markdown,
        "table7.html": page.as_html(result),
        "table7.svg": figures.figure_file(result),
    }
    for name, text in files.items():
        replace(out / name, text)
    print(f"\n{markdown}\nwritten to {out}: table7.json, .md, .html and .svg")
    problems = report.problems(result)
    for problem in problems:
        print(f"loadtest: {problem}", file=sys.stderr)
    if not any(row.requests for system in result.systems for row in system.closed):
        return 2
    return 1 if problems else 0


def redrawn(path: Path, out: Path) -> int:
    """Writes the reports of measurements that were made before; the exit status."""
    try:
        result = result_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"loadtest: {path}: no report of a load test: {error!r}", file=sys.stderr)
        return 2
    return reported(result, out)


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    if options.quick:
        return quick_plan(
            options.systems, connections=options.connections[0], objective_ms=options.objective_ms[0]
        )
    return full_plan(
        options.systems,
        rounds=options.rounds,
        warm_up=options.warm_up,
        duration=options.duration,
        requests=options.requests,
        longest=options.longest,
        connections=tuple(options.connections),
        percents=options.shares,
        step=options.step,
        longest_step=options.longest_step,
        step_requests=options.step_requests,
        objectives_ms=tuple(options.objective_ms),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    systems = parser.add_argument_group("systems")
    systems.add_argument(
        "--systems", nargs="+", choices=list(KINDS), default=list(KINDS), help="which to compare (all)"
    )
    systems.add_argument(
        "--task", nargs="+", choices=TASKS, default=list(TASKS), help="of the usual bundles (both)"
    )
    for key, kind in KINDS.items():
        usual = kind.folder.format(task="TASK")
        systems.add_argument(f"--{key}", type=Path, nargs="+", metavar="DIR", help=f"bundles ({usual})")
    systems.add_argument(
        "--texts",
        type=Path,
        default=Path("runs/quickstart/test.txt"),
        help="UTF-8 text, one sentence a line, tokens split by spaces (runs/quickstart/test.txt)",
    )
    systems.add_argument(
        "--input", choices=["tokens", "texts"], default="tokens", help="send words or raw text (tokens)"
    )

    amount = parser.add_argument_group("how much")
    amount.add_argument("--quick", action="store_true", help="two minutes: one short round, rough figures")
    amount.add_argument("--rounds", type=_positive, default=2, help="in which the systems take turns (2)")
    amount.add_argument("--warm-up", type=_seconds, default=1, help="before each closed loop counts (1s)")
    amount.add_argument("--duration", type=_seconds, default=10, help="of each closed loop, at least (10s)")
    amount.add_argument("--requests", type=_positive, default=16, help="answered in each, at least (16)")
    amount.add_argument(
        "--longest", type=_seconds, default=120, help="of each, at most, the warm-up included (120s)"
    )
    amount.add_argument(
        "--connections",
        type=_positive,
        nargs=2,
        default=[16, 8],
        metavar=("SINGLE", "BATCH"),
        help="a worker, for requests of 1 and of 32 sentences (16 8); the server's queue has room for 16,384 "
        "tokens",
    )
    amount.add_argument(
        "--shares",
        type=_positive,
        nargs="+",
        default=[25, 50, 75, 90, 110],
        metavar="PERCENT",
        help="of the capacity: the steps of the open loops (25 50 75 90 110)",
    )
    amount.add_argument("--step", type=_seconds, default=10, help="length of a step, at least (10s)")
    amount.add_argument("--step-requests", type=_positive, default=40, help="in a step, at least (40)")
    amount.add_argument(
        "--longest-step", type=_seconds, default=45, help="a system that needs more has no open loop (45s)"
    )
    amount.add_argument(
        "--objective-ms",
        type=float,
        nargs=2,
        default=[50.0, 250.0],
        metavar=("SINGLE", "BATCH"),
        help="latencies within which an answer is good (50 250)",
    )

    where = parser.add_argument_group("servers and files")
    where.add_argument("--workers", type=_positive, default=1, help="server processes (1)")
    where.add_argument("--threads", type=_positive, default=1, help="threads of each (1)")
    where.add_argument(
        "--server-cores", type=int, nargs="+", metavar="N", help="of the server (the first: one a thread)"
    )
    where.add_argument("--out", type=Path, default=Path("reports"), help="folder of the reports (reports)")
    where.add_argument(
        "--redraw",
        type=Path,
        metavar="JSON",
        help="measure nothing: write the reports anew from this table7.json",
    )
    where.add_argument(
        "--rows",
        type=Path,
        default=Path("runs/loadtest/rows.jsonl"),
        help="gets the rows of each loop as soon as it is over (runs/loadtest/rows.jsonl)",
    )
    where.add_argument("--start-timeout", type=_seconds, default=180, help="for a server to start (180s)")
    where.add_argument(
        "--server-command",
        type=shlex.split,
        default=[sys.executable, "-m", "serve"],
        metavar="COMMAND",
        help="starts the server; --bundles, --host, --port, --workers and --threads are added",
    )
    options = parser.parse_args(arguments)
    for name in FULL_ONLY:
        if options.quick and getattr(options, name) != parser.get_default(name):
            parser.error(f"--quick has its own --{name.replace('_', '-')}: leave one of them out")
    if options.duration + options.warm_up > options.longest:
        parser.error(f"--duration and --warm-up are more than --longest, {options.longest}s: raise that too")
    options.systems = list(dict.fromkeys(options.systems))
    options.given = {key: getattr(options, key.replace("-", "_")) or () for key in KINDS}
    for key in KINDS:
        if options.given[key] and key not in options.systems:
            parser.error(f"--{key} is given, but --systems leaves it out")
    return options


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)s?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected whole seconds such as 20s, not {text!r}")
    return int(match[1])


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


def _say(line: str) -> None:
    print(line, flush=True)


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
