"""python -m loadtest: serve the teacher, press it, serve the student, press it, write table 7.

Exit status: 0 all requests answered, 1 some failed (the report says so), 2 nothing could be measured,
130 stopped by Ctrl-C.
"""

import argparse
import json
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Never

from loadtest import report, server
from loadtest.bundles import Bundle, BundleError, read_bundle
from loadtest.check import CheckError, check_answers
from loadtest.measure import Load, LocustError, measure, replace
from loadtest.sentences import SentencesError, read_sentences

QUICK_SECONDS = 5
CHECKED_SENTENCES = 64
USERS_PER_WORKER = 4  # enough in flight to keep a worker busy, few enough not to be refused


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, _terminate)  # so that finally clauses stop the servers
    try:
        pairs = pair(options.teacher, options.student)
        sentences = read_sentences(options.texts)
        return run(options, pairs, sentences)
    except (BundleError, SentencesError, server.ServerError, CheckError, LocustError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("loadtest: stopped; no report was written", file=sys.stderr)
        return 130


def pair(teachers: Sequence[Path], students: Sequence[Path]) -> list[tuple[Bundle, Bundle]]:
    """(teacher, student) for each task, matched by the task that their manifests name."""
    by_task: dict[str, dict[str, Bundle]] = {"teacher": {}, "student": {}}
    for system, folders in (("teacher", teachers), ("student", students)):
        for folder in folders:
            bundle = read_bundle(folder)
            if bundle.task in by_task[system]:
                raise BundleError(f"{folder}: a second {system} for the task {bundle.task}")
            by_task[system][bundle.task] = bundle
    tasks = sorted(by_task["teacher"].keys() | by_task["student"].keys())
    for task in tasks:
        for system, found in by_task.items():
            if task not in found:
                raise BundleError(f"no {system} for the task {task}: give its folder with --{system}")
    return [(by_task["teacher"][task], by_task["student"][task]) for task in tasks]


def run(
    options: argparse.Namespace,
    pairs: Sequence[tuple[Bundle, Bundle]],
    sentences: Sequence[list[str]],
) -> int:
    """Measure every pair and write the reports; the exit status."""
    users = options.users or USERS_PER_WORKER * options.workers
    load = Load(users, options.batch, options.duration, options.warm_up, options.input)
    under = report.conditions(
        load, workers=options.workers, threads=options.threads, path=options.texts, sentences=sentences
    )
    comparisons, pages = [], []
    for teacher, student in pairs:
        rows = []
        for system, bundle in (("teacher", teacher), ("student", student)):
            print(f"{bundle.task}, {system}: {bundle.name}", flush=True)
            page = options.out / f"locust-{bundle.task}-{system}.html"
            rows.append(measure_one(options, bundle, sentences, load, page))
            pages.append(page.name)
            print(f"    {rows[-1].measurement.sentences_per_second:,.1f} sentences/second", flush=True)
        comparisons.append(report.Comparison(*rows))
    figures = json.dumps(report.as_json(comparisons, under), indent=2, ensure_ascii=False)
    markdown = report.as_markdown(comparisons, under)
    replace(options.out / "table7.json", figures + "\n")
    replace(options.out / "table7.md", markdown)
    replace(options.out / "table7.html", report.as_html(comparisons, under, pages))
    print(f"\n{markdown}\nwritten to {options.out}/table7.json, .md and .html")
    found = report.problems(comparisons)
    for problem in found:
        print(f"loadtest: {problem}", file=sys.stderr)
    return 1 if found else 0


def measure_one(
    options: argparse.Namespace,
    bundle: Bundle,
    sentences: Sequence[list[str]],
    load: Load,
    page: Path,
) -> report.Row:
    """Serve one bundle, check its answers, press it."""
    with server.running(
        bundle,
        command=options.server_command,
        workers=options.workers,
        threads=options.threads,
        timeout=options.start_timeout,
    ) as url:
        sample = sentences[: min(CHECKED_SENTENCES, load.batch)]
        checked = check_answers(url, bundle, sample, load.input)
        print(f"    ready; {checked}", flush=True)
        return report.Row(bundle, measure(url, bundle.task, options.texts, load, page), checked)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--student",
        type=Path,
        nargs="+",
        help="bundles of students (default: bundles/TASK)",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        help="bundles of teachers (default: bundles/teachers/TASK)",
    )
    parser.add_argument(
        "--task", choices=["ner", "parse"], nargs="+", default=["ner", "parse"], help="of the default bundles"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        default=Path("runs/quickstart/test.txt"),
        help="UTF-8 text, one sentence a line, tokens split by spaces",
    )
    parser.add_argument("--input", choices=["tokens", "texts"], default="tokens", help="words or raw text")
    parser.add_argument("--duration", type=_seconds, default=20, help="that count, for each server (20s)")
    parser.add_argument("--warm-up", type=_seconds, default=5, help="before that (5s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} s each, 2 s of warm-up")
    parser.add_argument("--users", type=_positive, help=f"at once (default: {USERS_PER_WORKER} a worker)")
    parser.add_argument("--batch", type=_positive, default=32, help="sentences a request (32)")
    parser.add_argument("--workers", type=_positive, default=1, help="server processes (1)")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of each (1)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the reports")
    parser.add_argument("--start-timeout", type=_seconds, default=180, help="for a server to be ready (180s)")
    parser.add_argument(
        "--server-command",
        type=shlex.split,
        default=[sys.executable, "-m", "serve"],
        metavar="COMMAND",
        help="starts the server; --bundles, --host, --port, --workers and --threads are added",
    )
    options = parser.parse_args(arguments)
    options.student = options.student or [Path("bundles", task) for task in options.task]
    options.teacher = options.teacher or [Path("bundles", "teachers", task) for task in options.task]
    if options.quick:
        options.duration, options.warm_up = QUICK_SECONDS, 2
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


def _terminate(number: int, frame: FrameType | None) -> Never:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
