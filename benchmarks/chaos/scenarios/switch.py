"""New, old and broken versions of a model under load, made known by SIGHUP or found by the server itself."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.client import Outcome
from benchmarks.chaos.figures import Findings, kinds
from benchmarks.chaos.loads import closed_loop, drive
from benchmarks.chaos.serving import Served, Setup, serving
from benchmarks.chaos.traffic import mixed

WORKERS = 2
CONNECTIONS = 16
REQUESTS_A_CONNECTION = 50
WAYS = ("sighup", "watch")
WATCH_SECONDS = "0.5"
BETWEEN_SECONDS = 1.0  # of load after each change
GIVE_UP_SECONDS = 30.0
LOOKS = 20  # one after another, each over a new connection, so that every worker is seen
LOOK_SECONDS = 0.2
REFUSALS = (429,)


@dataclass(frozen=True, slots=True)
class Change:
    """A change to the folder of bundles, and what is to be seen of it."""

    name: str
    make: Callable[[Path], None]
    seen: Callable[[Served, Setup], bool]


def measure(setup: Setup) -> Findings:
    """A second version, a broken third one, and back to the first; each way on a server of its own."""
    outcomes: list[Outcome] = []
    unseen: list[str] = []
    seconds: dict[str, float] = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory(prefix="chaos-bundles-") as temporary:
            bundles = Path(temporary) / "bundles"
            shutil.copytree(setup.bundles / "ner", bundles / "ner" / "1")
            shutil.copytree(setup.bundles / "parse", bundles / "parse")
            settings = {"watch_seconds": WATCH_SECONDS if way == "watch" else "0"}
            with serving(setup, bundles=bundles, workers=WORKERS, settings=settings) as served:
                found, took = drive(_switch_under_load(setup, served, bundles, way))
        outcomes += found
        for name, time_taken in took.items():
            if time_taken is None:
                unseen.append(f"{way}: {name}")
            else:
                seconds[f"{way}: {name}"] = round(time_taken, 2)
    failed = [each for each in outcomes if not each.accepted and each.status not in REFUSALS]
    figures = {
        "switch_requests": len(outcomes),
        "switch_failed": len(failed),
        "switch_failures": kinds(failed),
        "switch_changes": len(seconds) + len(unseen),
        "switch_unseen": len(unseen),
        "switch_seconds": seconds,
        "switch_outcomes": kinds(outcomes),
    }
    return Findings(figures, [f"not seen in {GIVE_UP_SECONDS:g} s: {name}" for name in unseen])


async def _switch_under_load(
    setup: Setup, served: Served, bundles: Path, way: str
) -> tuple[list[Outcome], dict[str, float | None]]:
    """All outcomes, and for each change the seconds until every worker showed it (None: not in time)."""
    over = asyncio.Event()
    load = asyncio.create_task(
        closed_loop(
            served.address,
            mixed(setup.sentences, seed=1),
            connections=CONNECTIONS,
            requests_a_connection=REQUESTS_A_CONNECTION,
            until=over.is_set,
        )
    )
    took: dict[str, float | None] = {}
    try:
        await asyncio.sleep(BETWEEN_SECONDS)
        for change in CHANGES:
            start = time.monotonic()
            await asyncio.to_thread(change.make, bundles)
            if way == "sighup":
                served.process.send_signal(signal.SIGHUP)
            took[change.name] = await asyncio.to_thread(_until_seen, change, served, setup, start)
            setup.say(f"{way}: {change.name}: {took[change.name] or 'not seen'}")
            await asyncio.sleep(BETWEEN_SECONDS)
    finally:
        over.set()
    return (await load).outcomes, took


def _until_seen(change: Change, served: Served, setup: Setup, start: float) -> float | None:
    in_a_row = 0
    while time.monotonic() < start + GIVE_UP_SECONDS:
        in_a_row = in_a_row + 1 if change.seen(served, setup) else 0
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


def _answers_with(version: str) -> Callable[[Served, Setup], bool]:
    def seen(served: Served, setup: Setup) -> bool:
        answer = served.annotate("ner", setup.sentences[:1])
        return bool(answer["model"] == f"ner@{version}")

    return seen


def _refuses_the_third(served: Served, setup: Setup) -> bool:
    refused = served.get("/models").get("refused", {})
    return "ner@3" in str(refused) and _answers_with("2")(served, setup)


def _remove_newer(bundles: Path) -> None:
    for version in ("3", "2"):
        (bundles / "ner" / version).rename(bundles.parent / f"removed-{version}")


CHANGES = (
    Change("a second version", lambda bundles: _publish(bundles, "2"), _answers_with("2")),
    Change("a broken version", lambda bundles: _publish(bundles, "3", broken=True), _refuses_the_third),
    Change("back to the first", _remove_newer, _answers_with("1")),
)
