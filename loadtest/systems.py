"""Which systems are compared: the bundles of each, task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bundles import Bundle, BundleError, MissingBundleError, read_bundle


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of system: where its bundles lie, with {task}, and the command that makes them, with {run}."""

    folder: str
    command: str


KINDS: Mapping[str, Kind] = {
    "student": Kind("bundles/{task}", "python -m export {run}"),
    "student-int8": Kind("bundles/{task}-int8", "python -m export {run} --precision int8"),
    "teacher": Kind("bundles/teachers/{task}", "python -m export {run} --teachers --out bundles/teachers"),
    "paper-shape": Kind(
        "bundles/paper-shape/{task}", "python -m export.paper_shape {run} --out bundles/paper-shape"
    ),
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """One system of one task."""

    key: str
    bundle: Bundle


def contestants(
    keys: Sequence[str],
    given: Mapping[str, Sequence[Path]],
    tasks: Sequence[str],
    *,
    run: Path,
) -> list[Contestant]:
    """The bundles of the systems `keys`, the first task's first.

    Args:
        given: folders by system, in place of the usual ones.
        tasks: of the usual folders; where any folder is given, the tasks of those.
        run: for the command that is named where a bundle is missing.

    Raises:
        BundleError: a bundle is missing or cannot be used, or two are of the same system and task.
    """
    found: dict[tuple[str, str], Bundle] = {}
    for key in keys:
        for folder in given.get(key, ()):
            bundle = _read(key, folder, keys, run)
            if (bundle.task, key) in found:
                raise BundleError(f"{folder}: a second {key} for the task {bundle.task}")
            found[bundle.task, key] = bundle
    wanted = sorted({task for task, _ in found}) if found else list(tasks)
    for task in wanted:
        for key in keys:
            if (task, key) in found:
                continue
            if given.get(key):
                raise BundleError(f"no {key} for the task {task}: give its folder with --{key} too")
            folder = Path(KINDS[key].folder.format(task=task))
            bundle = _read(key, folder, keys, run)
            if bundle.task != task:
                raise BundleError(f"{folder}: its task is {bundle.task}, expected {task}")
            found[task, key] = bundle
    return [Contestant(key, found[task, key]) for task in wanted for key in keys]


def _read(key: str, folder: Path, keys: Sequence[str], run: Path) -> Bundle:
    try:
        return read_bundle(folder)
    except MissingBundleError as error:
        others = [other for other in keys if other != key]
        leave_out = f", or leave the system out: --systems {' '.join(others)}" if others else ""
        command = KINDS[key].command.format(run=run)
        raise MissingBundleError(
            f"{folder}/manifest.json: no such file; make the {key} with: {command} "
            f"(make loadtest does){leave_out}"
        ) from error
