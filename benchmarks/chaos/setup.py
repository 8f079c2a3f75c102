"""What every scenario gets: bundles, sentences, and the real server over them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.server import Server, ServerError, serving
from loadtest.systems import TASKS, read_bundle


@dataclass(frozen=True, slots=True)
class Setup:
    """Where bundles and sentences are; a quick run is shorter and rougher."""

    bundles: Path
    texts: Path
    sentences: Sequence[list[str]]
    quick: bool = False

    def seconds(self, whole: float, quick: float) -> float:
        return quick if self.quick else whole

    @contextmanager
    def serving(
        self,
        bundles: Path | None = None,
        *,
        workers: int = 1,
        core: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Server]:
        """A server of the bundles ner and parse, or of a whole folder, that answers for both tasks.

        `settings` are by their names without SERVE_.

        Raises:
            UnfitBundleError, ServerError: a bundle cannot be used, or the server gives no answers.
        """
        linked = {task: read_bundle(self.bundles / task).folder for task in TASKS} if bundles is None else {}
        with serving(
            bundles or linked,
            workers=workers,
            cores=None if core is None else {core},
            settings=settings,
        ) as server:
            sample = self.sentences[:2]
            for task in TASKS:
                results = server.post(f"/{task}", {"sentences": sample}).get("results", ())
                if len(results) != len(sample):
                    raise ServerError(f"/{task} gave {len(results)} results for {len(sample)}")
            yield server


def progress(line: str) -> None:
    """Prints a line about a scenario that goes on."""
    print(f"    {line}", flush=True)
