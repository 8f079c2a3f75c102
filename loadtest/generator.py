"""The load generator: Locust in a process of its own, because it patches sockets.

It reads a job a line from its standard input and answers each with a line of JSON: the rows that were
measured, or what was wrong. It ends with its input.
"""

import gc
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from loadtest import closed_loop, open_loop
from loadtest.jobs import ClosedJob, Job, from_line
from loadtest.order import evenly_mixed
from loadtest.sentences import Input, SentencesError, read_sentences
from loadtest.wire import Request, requests_of


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"rows": rows_of(from_line(line))}
        except (SentencesError, OSError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def rows_of(job: Job) -> list[dict[str, Any]]:
    """Does a job: the fields of a `Closed`, or of a `Step` for each step."""
    requests = all_requests(job.target.texts, job.size, job.target.path, job.target.kind)
    gc.collect()
    gc.disable()  # a pause of the generator would be a pause of the load
    try:
        if isinstance(job, ClosedJob):
            return [asdict(closed_loop.press(job, requests))]
        return [asdict(step) for step in open_loop.press(job, requests)]
    finally:
        gc.enable()


@cache
def all_requests(texts: str, size: int, path: str, kind: Input) -> Sequence[Request]:
    """The requests of every system, the same in the same order."""
    return requests_of(evenly_mixed(read_sentences(Path(texts))), size, path=path, kind=kind)


if __name__ == "__main__":
    main()
