"""python -m loadtest: students and teachers behind the same server, loaded in turn, as the paper's table 7.

For each task and each system it starts the server with that bundle alone, pinned to its own core, checks that
the intended model answers, and measures, with Locust on another core: a closed loop with one sentence a
request, one with 32, and latencies while requests arrive at random at shares of the capacity found. The
systems take turns, round by round. Linux only: it pins processes to cores.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Never

from loadtest import plan, report
from loadtest.check import CheckError
from loadtest.generator import GeneratorError, generating
from loadtest.load_test import LoadTest
from loadtest.machine import machine, now, versions
from loadtest.markdown import page
from loadtest.measurements import Conditions, Result, result_of
from loadtest.processes import split_cores
from loadtest.sentences import SentencesError, read_sentences
from loadtest.server import SERVE, ServerError
from loadtest.systems import KINDS, TASKS, UnfitBundleError, candidates
from structural_kd.files import write_whole

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

It writes table7.json, .md, .html and .svg into --out.
Exit status: 0 all requests answered, 1 some failed or the generator was the bottleneck (the report says so at
its top), 2 something could not be measured, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.redraw:
        try:
            result = result_of(json.loads(options.redraw.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            print(f"loadtest: {options.redraw}: no report of a load test: {error}", file=sys.stderr)
            return 2
        return write_report(result, options.out)
    signal.signal(signal.SIGTERM, _terminate)  # so that finally clauses stop the servers
    try:
        result = measure(options)
    except (UnfitBundleError, SentencesError, ServerError, CheckError, GeneratorError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2
    except (OSError, HTTPException) as error:  # a command that is not there, a folder that is read-only
        print(f"loadtest: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("loadtest: stopped; no report was written", file=sys.stderr)
        return 130
    return write_report(result, options.out)


def measure(options: argparse.Namespace) -> Result:
    """Runs the whole load test. Raises UnfitBundleError, SentencesError and what `LoadTest.run` raises."""
    chosen = candidates(options.systems, options.given, options.task, run=options.texts.parent)
    sentences = read_sentences(options.texts)
    date, steps = now(), plan.QUICK if options.quick else plan.FULL
    server_core, generator_core = split_cores()
    with generating(generator_core) as generator:
        load_test = LoadTest(
            plan=steps,
            texts=options.texts,
            sentences=sentences,
            command=options.server_command,
            core=server_core,
            generator=generator,
        )
        systems, skipped, settings = load_test.run(chosen)
    conditions = Conditions(
        quick=options.quick,
        rounds=steps.rounds,
        server_cores=[server_core],
        generator_cores=[generator_core],
        workers=1,
        threads=1,
        sentences=f"{options.texts}, as tokens",
        sentence_count=len(sentences),
        mean_tokens=sum(map(len, sentences)) / len(sentences),
        date=date,
        machine=machine(),
        versions=versions(PACKAGES),
        settings=settings,
    )
    return Result(systems, conditions, skipped)


def write_report(result: Result, out: Path) -> int:
    """Writes the report's files and prints the tables; the exit status."""
    markdown = report.as_markdown(result)
    write_whole(out / "table7.json", json.dumps(report.as_json(result), indent=2, ensure_ascii=False) + "\n")
    write_whole(out / "table7.md", markdown)
    write_whole(out / "table7.html", page(report.TITLE, markdown))
    write_whole(out / "table7.svg", report.as_figure(result))
    print(f"\n{markdown}\nwritten to {out}: table7.json, .md, .html and .svg")
    problems = report.problems(result)
    for problem in problems:
        print(f"loadtest: {problem}", file=sys.stderr)
    if not any(row.requests for system in result.systems for row in system.closed):
        return 2
    return 1 if problems else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two minutes: one short round, rough figures")
    parser.add_argument(
        "--systems", nargs="+", choices=list(KINDS), default=list(KINDS), help="which to compare (all)"
    )
    parser.add_argument(
        "--task", nargs="+", choices=TASKS, default=list(TASKS), help="of the usual bundles (both)"
    )
    for key, kind in KINDS.items():
        usual = kind.folder.format(task="TASK")
        parser.add_argument(f"--{key}", type=Path, nargs="+", metavar="DIR", help=f"bundles ({usual})")
    parser.add_argument(
        "--texts",
        type=Path,
        default=Path("runs/quickstart/test.txt"),
        help="UTF-8 text, one sentence a line, tokens split by spaces (runs/quickstart/test.txt)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the reports (reports)")
    parser.add_argument(
        "--redraw",
        type=Path,
        metavar="JSON",
        help="measure nothing: write the reports anew from this table7.json",
    )
    parser.add_argument(
        "--server-command",
        type=shlex.split,
        default=SERVE,
        metavar="COMMAND",
        help="starts the server; --bundles, --host, --port, --workers and --threads are added",
    )
    options = parser.parse_args(arguments)
    options.systems = list(dict.fromkeys(options.systems))
    options.given = {key: getattr(options, key.replace("-", "_")) or () for key in KINDS}
    for key in KINDS:
        if options.given[key] and key not in options.systems:
            parser.error(f"--{key} is given, but --systems leaves it out")
    return options


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
