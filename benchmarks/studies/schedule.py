"""Jobs on the cores: teachers before their students, a line after each."""

import multiprocessing
import os
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from benchmarks.studies.rows import JobResult, ResultRow, Results, is_current
from benchmarks.studies.runs import StudentJob, StudyRun
from benchmarks.studies.work import train_one, train_run_teachers
from train.progress import progress_bar
from train.run import USER_ERRORS, end_with
from train.tasks import TASKS

MAIN_METRICS = {task.metric for task in TASKS.values()}

Job = str | StudentJob
"""The teachers of a run, by its name, or a student."""


class Queue:
    """The jobs of a study that are left, in their order, and which of them can be started now."""

    def __init__(self, runs: Mapping[str, StudyRun], students: Sequence[StudentJob]) -> None:
        self.runs = runs
        self.students = list(students)
        self.teachers = list(dict.fromkeys(job.run for job in students))
        self.running: set[Job] = set()
        self._have_teachers: set[str] = set()

    def __len__(self) -> int:
        return len(self.teachers) + len(self.students) + len(self.running)

    def next(self) -> Job | None:
        """Take the first job that can be started; None where all wait for others.

        Teachers go first. Two runs over the same text do not train teachers at the same time: the second one
        finds the word vectors, features and teachers that the first one made.
        """
        busy = {self.runs[job].text_key() for job in self.running if isinstance(job, str)}
        for name in self.teachers:
            if self.runs[name].text_key() not in busy:
                self.teachers.remove(name)
                self.running.add(name)
                return name
        for job in self.students:
            if job.run in self._have_teachers:
                self.students.remove(job)
                self.running.add(job)
                return job
        return None

    def finish(self, job: Job) -> None:
        self.running.remove(job)
        if isinstance(job, str):
            self._have_teachers.add(job)

    def fail(self, job: Job) -> list[StudentJob]:
        """Take a failed job out, and return the students that cannot be trained without it."""
        self.running.remove(job)
        lost = [student for student in self.students if student.run == job]
        self.students = [student for student in self.students if student.run != job]
        return lost


def run_jobs(
    results: Results,
    runs: Mapping[str, StudyRun],
    students: Sequence[StudentJob],
    out: Path,
    *,
    processes: int,
) -> list[str]:
    """Train students, and return what failed, a line each. A failed job does not stop the others.

    Args:
        students: the most urgent first.
        out: the folder of the study's runs.

    Raises:
        RuntimeError: a worker was killed, by a lack of memory for example.
    """
    queue = Queue(runs, students)
    of_teachers: dict[str, list[ResultRow]] = defaultdict(list)
    for row in results.rows:
        if not row["student"] and is_current(row, runs):
            of_teachers[row["run"]].append(row)
    measured = {name: rows for name, rows in of_teachers.items() if all(map(results.has_counts, rows))}
    failed, log = [], out / "log.txt"
    print(f"{len(students)} students and the teachers of {len(queue.teachers)} runs are left", flush=True)
    futures: dict[Future[JobResult], Job] = {}
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(log,))
    bar = progress_bar(len(queue), "study", "job")
    try:
        while queue:
            while len(futures) < processes and (job := queue.next()) is not None:
                if isinstance(job, str):
                    future = pool.submit(train_run_teachers, runs[job], out, job in measured)
                else:
                    future = pool.submit(train_one, runs[job.run], out, job)
                futures[future] = job
            finished, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in finished:
                job = futures.pop(future)
                bar.update()
                try:
                    result = future.result()
                except BrokenProcessPool:
                    during = ", ".join(map(_title, [job, *futures.values()]))
                    raise RuntimeError(f"a worker was killed during {during}; see {log}") from None
                except Exception as error:  # whatever it was: the other jobs are worth their while
                    lost = queue.fail(job)
                    more = f", and with it {len(lost)} students" if lost else ""
                    why = reason(error, log)
                    failed.append(f"{_title(job)}: {why}")
                    bar.write(f"FAILED {_title(job)}{more}: {why}")
                    continue
                queue.finish(job)
                if isinstance(job, str) and job in measured:
                    summary = "there already" + other_teachers(result.rows, measured[job])
                else:
                    results.add(_with_keys(result, runs, job))
                    summary = _summary(result)
                bar.write(f"[{bar.n}/{bar.total}] {_title(job)}: {summary}")
    finally:
        bar.close()
        # A worker would shut down only after its training; a checkpoint keeps the work so far.
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
    return failed


def _start_worker(log: Path) -> None:
    """A worker's output goes to a file, where bars do not mix; and it ends when its parent is killed."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def _with_keys(result: JobResult, runs: Mapping[str, StudyRun], job: Job) -> JobResult:
    """The rows of a job with the run, the kind of student and the settings that they are of."""
    name, student = (job, None) if isinstance(job, str) else (job.run, job.student)
    run = runs[name]
    keys = {
        "run": name,
        "corpus": run.corpus,
        "student": student or "",
        "settings": run.digests[student] if student else run.teachers_digest,
    }
    return JobResult(
        [{**keys, **row} for row in result.rows],
        [({**keys, **row}, counts) for row, counts in result.counts],
    )


def reason(error: Exception, log: Path) -> str:
    """Why a job failed; the traceback of a fault of the program goes to the log."""
    if isinstance(error, USER_ERRORS):
        return str(error)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return f"{type(error).__name__}: {error}; see {log}"


def other_teachers(found: Sequence[ResultRow], stored: Sequence[ResultRow]) -> str:
    """A warning where teachers were trained again and score otherwise than those of the stored rows."""
    keys = "case", "split", "metric"
    before = {tuple(row[key] for key in keys): row["value"] for row in stored}
    for row in found:
        known = before.get(tuple(row[key] for key in keys))
        if row["metric"] in MAIN_METRICS and known is not None and known != row["value"]:
            name = f"{row['split']} {row['metric'].upper()}"
            return f", but not those of the stored rows: {name} {row['value']:.2f}, stored {known:.2f}"
    return ""


def _title(job: Job) -> str:
    return f"{job} teachers" if isinstance(job, str) else str(job)


def _summary(result: JobResult) -> str:
    """The main scores of a job's model, and its seconds."""
    parts = []
    for split in ("dev", "test"):
        found = [row for row in result.rows if row["split"] == split and row["metric"] in MAIN_METRICS]
        parts += [f"{split} {found[0]['metric'].upper()} {found[0]['value']:.1f}"] if found else []
    seconds = next(row["value"] for row in result.rows if row["metric"] == "seconds")
    return f"{', '.join(parts)} ({seconds:.0f} s)"
