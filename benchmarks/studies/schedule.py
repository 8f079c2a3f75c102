"""Jobs on the cores: teachers before their students, the time left told after each."""

import multiprocessing
import os
import statistics
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from benchmarks.studies.plan import Run, StudentJob
from benchmarks.studies.rows import Outcome, Results, Row, is_current
from benchmarks.studies.work import teach_run, train_one
from train.run import USER_ERRORS, end_with
from train.tasks import TASKS

TEACHING_SECONDS, STUDENT_SECONDS = 120.0, 60.0
"""What a job is taken to last before one of its kind has been timed."""
MAIN_METRICS = {task.metric for task in TASKS.values()}

Job = str | StudentJob
"""The teachers of a run, by its name, or a student."""


class Queue:
    """The jobs of a study that are left, in their order, and which of them can be started now."""

    def __init__(self, runs: Mapping[str, Run], students: Sequence[StudentJob]) -> None:
        self.runs = runs
        self.students = list(students)
        self.teaching = list(dict.fromkeys(job.run for job in students))
        self.running: set[Job] = set()
        self._taught: set[str] = set()

    def __len__(self) -> int:
        return len(self.teaching) + len(self.students) + len(self.running)

    def next(self) -> Job | None:
        """Take the first job that can be started; None where all wait for others.

        Teachers go first. Two teachings over the same text do not run at the same time: the second one finds
        the word vectors, features and teachers that the first one made.
        """
        busy = {self.runs[job].text_key() for job in self.running if isinstance(job, str)}
        for name in self.teaching:
            if self.runs[name].text_key() not in busy:
                self.teaching.remove(name)
                self.running.add(name)
                return name
        for job in self.students:
            if job.run in self._taught:
                self.students.remove(job)
                self.running.add(job)
                return job
        return None

    def finish(self, job: Job) -> None:
        self.running.remove(job)
        if isinstance(job, str):
            self._taught.add(job)

    def fail(self, job: Job) -> list[StudentJob]:
        """Take a failed job out, and return the students that can not be trained without it."""
        self.running.remove(job)
        lost = [student for student in self.students if student.run == job]
        self.students = [student for student in self.students if student.run != job]
        return lost


def run_jobs(
    results: Results,
    runs: Mapping[str, Run],
    students: Sequence[StudentJob],
    out: Path,
    *,
    processes: int,
    say: Callable[[str], None],
) -> list[str]:
    """Train students, and return what failed, a line each. A failed job does not stop the others.

    Args:
        students: the most urgent first.
        out: the folder of the study's runs.
        say: told a line for each job that ends.

    Raises:
        RuntimeError: a worker was killed, by a lack of memory for example.
    """
    queue = Queue(runs, students)
    of_teachers: dict[str, list[Row]] = defaultdict(list)
    for row in results.rows:
        if not row["student"] and is_current(row, runs):
            of_teachers[row["run"]].append(row)
    measured = {name: rows for name, rows in of_teachers.items() if all(map(results.has_counts, rows))}
    total, failed, log = len(queue), [], out / "log.txt"
    left = duration(seconds_left(results.rows, queue, processes))
    say(f"{len(students)} students and the teachers of {len(queue.teaching)} runs are left, about {left}")
    futures: dict[Future[Outcome], Job] = {}
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(log,))
    try:
        while queue:
            while len(futures) < processes and (job := queue.next()) is not None:
                futures[_submit(pool, runs, out, job, measured)] = job
            finished, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in finished:
                job = futures.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    during = ", ".join(map(_name, [job, *futures.values()]))
                    raise RuntimeError(f"a worker was killed during {during}; see {log}") from None
                except Exception as error:  # whatever it was: the other jobs are worth their while
                    lost = queue.fail(job)
                    more = f", and with it {len(lost)} students" if lost else ""
                    reason = why(error, log)
                    failed.append(f"{_name(job)}: {reason}")
                    say(f"FAILED {_name(job)}{more}: {reason}")
                    continue
                queue.finish(job)
                if isinstance(job, str) and job in measured:
                    told = "there already" + other_teachers(outcome.rows, measured[job])
                else:
                    results.add(_signed(outcome, runs, job))
                    told = _said(outcome)
                left = duration(seconds_left(results.rows, queue, processes))
                say(f"[{total - len(queue)}/{total}] {_name(job)}: {told}; {left} left")
    finally:
        # A worker would only hear of a shutdown after its training; a checkpoint keeps what it has done.
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
    return failed


def seconds_left(rows: Sequence[Row], queue: Queue, processes: int) -> float:
    """Seconds of wall-clock time for what is left, by the median time of such jobs in the rows.

    Such jobs are those of the same run and kind of model; where there are none, those of the same task.
    """
    known: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["metric"] == "seconds":
            known[row["run"], row["student"]].append(row["value"])
            known[row["task"], row["student"]].append(row["value"])

    def expected(job: Job) -> float:
        name, student = (job, "") if isinstance(job, str) else (job.run, job.student)
        times = known.get((name, student)) or known.get((queue.runs[name].task, student))
        return statistics.median(times) if times else STUDENT_SECONDS if student else TEACHING_SECONDS

    return sum(map(expected, [*queue.teaching, *queue.students, *queue.running])) / processes


def _submit(
    pool: ProcessPoolExecutor, runs: Mapping[str, Run], out: Path, job: Job, measured: Container[str]
) -> Future[Outcome]:
    if isinstance(job, str):
        return pool.submit(teach_run, runs[job], out, job in measured)
    return pool.submit(train_one, runs[job.run], out, job)


def _begin(log: Path) -> None:
    """A worker's output goes to a file, where bars do not mix; and it ends when its parent is killed."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def _signed(outcome: Outcome, runs: Mapping[str, Run], job: Job) -> Outcome:
    """The rows of a job with the run, the kind of student and the settings that they are of."""
    name, student = (job, None) if isinstance(job, str) else (job.run, job.student)
    run = runs[name]
    sign = {
        "run": name,
        "corpus": run.corpus,
        "student": student or "",
        "settings": run.digest(student) if student else run.teachers_digest(),
    }
    return Outcome(
        [{**sign, **row} for row in outcome.rows],
        [({**sign, **row}, counts) for row, counts in outcome.counts],
    )


def why(error: Exception, log: Path) -> str:
    """What a job failed of; if that is a fault of the program, the log has its place."""
    if isinstance(error, USER_ERRORS):
        return str(error)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return f"{type(error).__name__}: {error}; see {log}"


def other_teachers(found: Sequence[Row], stored: Sequence[Row]) -> str:
    """A warning where teachers were trained again and score otherwise than those of the stored rows."""
    keys = "case", "split", "metric"
    before = {tuple(row[key] for key in keys): row["value"] for row in stored}
    for row in found:
        known = before.get(tuple(row[key] for key in keys))
        if row["metric"] in MAIN_METRICS and known is not None and known != row["value"]:
            name = f"{row['split']} {row['metric'].upper()}"
            return f", but not those of the stored rows: {name} {row['value']:.2f}, stored {known:.2f}"
    return ""


def _name(job: Job) -> str:
    return f"{job} teachers" if isinstance(job, str) else str(job)


def _said(outcome: Outcome) -> str:
    """The main scores of a job's model, and its seconds."""
    parts = []
    for split in ("dev", "test"):
        found = [row for row in outcome.rows if row["split"] == split and row["metric"] in MAIN_METRICS]
        parts += [f"{split} {found[0]['metric'].upper()} {found[0]['value']:.1f}"] if found else []
    seconds = next(row["value"] for row in outcome.rows if row["metric"] == "seconds")
    return f"{', '.join(parts)} ({seconds:.0f} s)"


def duration(seconds: float) -> str:
    """Hours and minutes.

    >>> duration(59), duration(4000)
    ('1 min', '1 h 7 min')
    """
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{max(1, minutes)} min"
