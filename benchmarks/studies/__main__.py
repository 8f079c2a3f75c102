"""Train a study: a grid of recipes, job by job, and write its report.

python -m benchmarks.studies studies/paper.yaml             train missing students, then draw the report
python -m benchmarks.studies studies/paper.yaml --report    draw the report from stored rows, train nothing
python -m benchmarks.studies studies/paper.yaml --list      list finished and missing students; train nothing
python -m benchmarks.studies studies/paper.yaml --only 'entities*'    some of the runs

Results are rows in results.jsonl and counts in counts.jsonl beside the study file, so that each study has a
folder. A student that is there in both is not trained again, whatever else is on this machine. Runs,
teachers and logs are under runs/studies/NAME; a study that was stopped, at whatever moment, goes on with the
same command. Teachers are trained once and shared between runs.
"""

import argparse
import fcntl
import fnmatch
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from benchmarks.studies.check import check_cells
from benchmarks.studies.plan import StudyError, load_study
from benchmarks.studies.rows import Results, RowsError, is_current
from benchmarks.studies.runs import StudentJob, StudyRun, runs_of, student_jobs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="the study's YAML file, see studies/")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="only draw the report from the stored rows")
    what.add_argument("--list", action="store_true", help="only list finished and missing students")
    what.add_argument("--forget", action="store_true", help="only drop the rows that the study no longer has")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="runs to train; repeatable")
    parser.add_argument("--out", type=Path, help="the folder of the runs (default: runs/studies/NAME)")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1 if torch.cuda.is_available() else os.cpu_count() or 1,
        help="jobs at a time (default: one a core, or one on a GPU; here %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    try:
        return _run(options, options.out or Path("runs/studies") / options.study.stem)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    except (StudyError, RowsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError) as error:
        print(f"error: {error}; the same command goes on", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, out: Path) -> int:
    study = load_study(options.study)
    runs = runs_of(study, options.study)
    check_cells(study, runs, options.study)
    folder = options.study.parent
    if options.forget:
        with _locked(folder):
            print(f"{Results(folder).forget(runs)} rows dropped")
        return 0
    patterns = options.only or ["*"]
    chosen = [name for name in runs if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    if not chosen:
        raise StudyError(f"--only: no run is called so; there are: {', '.join(runs)}")
    jobs = [job for job in student_jobs(runs) if job.run in chosen]
    if options.list:
        _list(chosen, runs, jobs, Results(folder))
        return 0
    failed = () if options.report else _train(folder, out, runs, jobs, options.jobs)
    if study.tables or study.figure:
        from benchmarks.studies.report import write_report

        for file in write_report(options.study, study, runs, Results(folder)):
            print(f"wrote {file}")
    else:
        print(f"{options.study} has no tables and no figure, so that there is no report")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if failed else 0


def _train(
    folder: Path, out: Path, runs: dict[str, StudyRun], jobs: Sequence[StudentJob], processes: int
) -> Sequence[str]:
    """Train the jobs that are missing; what failed, a line each."""
    with _locked(folder):
        results = Results(folder)  # read while no other process writes them
        left = missing(jobs, runs, results)
        if not left:
            return ()
        from benchmarks.studies.schedule import run_jobs

        with _locked(out) if out.resolve() != folder.resolve() else nullcontext():
            return run_jobs(results, runs, left, out, processes=processes)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of a folder: each would lose what the other one trained."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{folder}: another process is training a study of this folder") from None
        yield


def missing(jobs: Sequence[StudentJob], runs: dict[str, StudyRun], results: Results) -> list[StudentJob]:
    """The jobs that have no rows under their run's settings, or a test score without its counts."""
    done, incomplete = set(), set()
    for row in results.rows:
        if row["student"] and is_current(row, runs):
            job = StudentJob(row["run"], row["student"], row["objective"], row["seed"])
            done.add(job)
            if not results.has_counts(row):
                incomplete.add(job)
    return [job for job in jobs if job not in done - incomplete]


def _list(
    names: Sequence[str], runs: dict[str, StudyRun], jobs: Sequence[StudentJob], results: Results
) -> None:
    left = missing(jobs, runs, results)
    for name in names:
        students = sum(job.run == name for job in jobs)
        print(f"{name}: {students - sum(job.run == name for job in left)} of {students} students")
        print(f"    {runs[name].command()}")
    print(f"{len(left)} of {len(jobs)} students are left to train")


if __name__ == "__main__":
    sys.exit(main())
