"""What the users of a load test do. It also runs alone, with Locust's own pages:

    python -m locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --sentences FILE --task ner

Closed loop: every user sends the next batch as soon as its last one is answered. All users draw from one
endless round of the same batches in the same order. With --summary the figures are written as JSON.
"""

import json
import os
import time
from argparse import Namespace
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.sentences import batches, read_sentences, request_body

PAUSE_AFTER_FAILURE = 0.2  # seconds, so that a server that has died is not hammered


@dataclass
class Tally:
    """Everything that was answered, with its time."""

    finished: list[float] = field(default_factory=list)  # seconds of time.perf_counter
    milliseconds: list[float] = field(default_factory=list)
    sentences: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    began: float = 0.0
    ended: float = 0.0


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    options = parser.add_argument_group("Structural KD")
    options.add_argument("--task", choices=["ner", "parse"], default="ner", help="the path that is asked")
    options.add_argument("--sentences", help="UTF-8 text, one sentence a line, tokens split by spaces")
    options.add_argument("--batch", type=int, default=32, help="sentences a request")
    options.add_argument("--input", choices=["tokens", "texts"], default="tokens", help="words or raw text")
    options.add_argument("--warm-up", type=float, default=3.0, help="seconds at the start that do not count")
    options.add_argument("--summary", default="", help="JSON file for the figures")


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    options: Namespace | None = environment.parsed_options
    if options is None or not options.sentences:
        raise SystemExit("--sentences FILE is needed")
    order = batches(read_sentences(Path(options.sentences)), options.batch)
    Sentences.work = cycle([(request_body(batch, options.input), len(batch)) for batch in order])
    Sentences.path = f"/{options.task}"


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    Sentences.tally = Tally(began=time.perf_counter())


@events.test_stopping.add_listener
def note_the_end(environment: Environment, **_: Any) -> None:
    Sentences.tally.ended = time.perf_counter()


@events.quitting.add_listener
def write_summary(environment: Environment, **_: Any) -> None:
    options: Namespace | None = environment.parsed_options
    if options is None or not options.summary:
        return
    path = Path(options.summary)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(summarise(Sentences.tally, options.warm_up)), encoding="utf-8")
    os.replace(temporary, path)


def summarise(tally: Tally, warm_up: float) -> dict[str, Any]:
    """Figures of what was answered after the warm-up; failures count from the first second on."""
    opens = tally.began + warm_up
    inside = [number for number, at in enumerate(tally.finished) if opens <= at <= tally.ended]
    return {
        "seconds": max(tally.ended - opens, 0.0),
        "requests": len(inside),
        "sentences": sum(tally.sentences[number] for number in inside),
        "milliseconds": [round(tally.milliseconds[number], 3) for number in inside],
        "failures": tally.failures.total(),
        "reasons": dict(tally.failures.most_common(5)),
    }


class Sentences(FastHttpUser):
    """A user that asks for one batch after another."""

    wait_time = constant(0)
    work: "cycle[tuple[bytes, int]]"
    path: str
    tally = Tally()

    @task
    def ask(self) -> None:
        body, size = next(self.work)
        began = time.perf_counter()
        with self.client.post(
            self.path,
            data=body,  # type: ignore[arg-type]  # bytes go out as they are
            headers={"Content-Type": "application/json"},
            catch_response=True,
        ) as answer:
            finished = time.perf_counter()
            reason = problem(answer, size)
            if reason is not None:
                answer.failure(reason)
                self.tally.failures[reason] += 1
            else:
                self.tally.finished.append(finished)
                self.tally.milliseconds.append((finished - began) * 1000)
                self.tally.sentences.append(size)
        if reason is not None:
            gevent.sleep(PAUSE_AFTER_FAILURE)


def problem(answer: Any, size: int) -> str | None:
    """Why an answer does not count, or None."""
    if answer.status_code != 200:
        return (
            f"status {answer.status_code}"
            if answer.status_code
            else f"no answer: {type(answer.error).__name__}"
        )
    try:
        results = len(answer.json()["results"])
    except (ValueError, KeyError, TypeError):
        return "the answer is not JSON with results"
    return None if results == size else f"{results} results for {size} sentences"
