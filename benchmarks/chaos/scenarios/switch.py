"""New, old and broken versions of a model under load, made known by SIGHUP or found by the server itself."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gevent

from benchmarks.chaos.figures import Findings, outcomes
from benchmarks.chaos.request_streams import mixed
from benchmarks.chaos.setup import Setup, progress
from loadtest.http_client import Exchange
from loadtest.loads import in_thread, under_load
from loadtest.measurements import REFUSED
from loadtest.server import Server, ServerError

WORKERS = 2
CONNECTIONS = 16
REQUESTS_A_CONNECTION = 50
WATCH_SECONDS = {"sighup": "0", "watch": "0.5"}  # the server's setting, by how it learns of a change
BETWEEN_SECONDS = 1.0  # of load after each change
GIVE_UP_SECONDS = 30.0
LOOKS = 20  # one after another, each over a new connection, so that every worker is seen
LOOK_SECONDS = 0.2


class Change(NamedTuple):
    """A change to the folder of bundles, and whether the server shows it for a sentence."""

    name: str
    make: Callable[[Path], None]
    is_shown: Callable[[Server, list[str]], bool]


def measure(setup: Setup) -> Findings:
    """A second version, a broken third one, and back to the first; each way on a server of its own."""
    exchanges: list[Exchange] = []
    unseen: list[str] = []
    seconds: dict[str, float] = {}
    for way, watch_seconds in WATCH_SECONDS.items():
        with tempfile.TemporaryDirectory(prefix="chaos-bundles-") as temporary:
            bundles = Path(temporary) / "bundles"
            shutil.copytree(setup.bundles / "ner", bundles / "ner" / "1")
            shutil.copytree(setup.bundles / "parse", bundles / "parse")
            settings = {"watch_seconds": watch_seconds}
            with setup.serving(bundles, workers=WORKERS, settings=settings) as server:
                sent, took = _switch_under_load(setup, server, bundles, way)
        exchanges += sent
        for name, each in took.items():
            if each is None:
                unseen.append(f"{way}: {name}")
            else:
                seconds[f"{way}: {name}"] = round(each, 2)
    failed = [each for each in exchanges if each.error and each.status != REFUSED]
    figures = {
        "switch_requests": len(exchanges),
        "switch_failed": len(failed),
        "switch_failures": outcomes(failed),
        "switch_changes": len(seconds) + len(unseen),
        "switch_unseen": len(unseen),
        "switch_seconds": seconds,
        "switch_outcomes": outcomes(exchanges),
    }
    return Findings(figures, [f"not seen in {GIVE_UP_SECONDS:g} s: {name}" for name in unseen])


def _switch_under_load(
    setup: Setup, server: Server, bundles: Path, way: str
) -> tuple[list[Exchange], dict[str, float | None]]:
    """All exchanges, and for each change the seconds until every worker showed it (None: not in time)."""
    took: dict[str, float | None] = {}
    with under_load(
        server.address,
        mixed(setup.sentences, seed=1),
        connections=CONNECTIONS,
        requests_a_connection=REQUESTS_A_CONNECTION,
        before=BETWEEN_SECONDS,
    ) as load:
        for change in CHANGES:
            start = time.monotonic()
            in_thread(change.make, bundles)
            if way == "sighup":
                server.process.send_signal(signal.SIGHUP)
            took[change.name] = in_thread(_seconds_until_shown, change, server, setup.sentences[0], start)
            progress(f"{way}: {change.name}: {took[change.name] or 'not seen'}")
            gevent.sleep(BETWEEN_SECONDS)
    return load.exchanges, took


def _seconds_until_shown(change: Change, server: Server, sentence: list[str], start: float) -> float | None:
    in_a_row = 0
    while time.monotonic() < start + GIVE_UP_SECONDS:
        try:
            in_a_row = in_a_row + 1 if change.is_shown(server, sentence) else 0
        except ServerError:  # the load had filled the queue
            in_a_row = 0
        if in_a_row == LOOKS:
            return time.monotonic() - start
        if not in_a_row:
            time.sleep(LOOK_SECONDS)
    return None


def _publish(bundles: Path, version: str, *, broken: bool = False) -> None:
    """Copies version 1 beside the bundles, perhaps breaks it, and renames it into place."""
    incoming = bundles.parent / f"ner-{version}"
    shutil.copytree(bundles / "ner" / "1", incoming)
    if broken:
        model = incoming / "model.onnx"
        os.truncate(model, model.stat().st_size // 2)
    incoming.rename(bundles / "ner" / version)


def _answers_with(version: str) -> Callable[[Server, list[str]], bool]:
    def is_shown(server: Server, sentence: list[str]) -> bool:
        return bool(server.post("/ner", {"sentences": [sentence]})["model"] == f"ner@{version}")

    return is_shown


def _refuses_the_third(server: Server, sentence: list[str]) -> bool:
    refused = server.get("/models").get("refused", {})
    return "ner@3" in str(refused) and _answers_with("2")(server, sentence)


def _remove_newer(bundles: Path) -> None:
    for version in ("3", "2"):
        (bundles / "ner" / version).rename(bundles.parent / f"removed-{version}")


CHANGES = (
    Change("a second version", lambda bundles: _publish(bundles, "2"), _answers_with("2")),
    Change("a broken version", lambda bundles: _publish(bundles, "3", broken=True), _refuses_the_third),
    Change("back to the first", _remove_newer, _answers_with("1")),
)
