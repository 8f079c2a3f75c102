"""What README, Makefile, pyproject.toml and constraints.txt promise one another."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("structural_kd", "train", "export", "serve", "loadtest", "benchmarks")
TARGETS = {
    "help",
    "setup",
    "distill",
    "study",
    "serve",
    "loadtest",
    "chaos",
    "bench",
    "peers",
    "test",
    "lint",
}
# Written with brackets so that this file does not hold what it looks for.
OF_ONE_MACHINE = re.compile(
    r"(?<![\w.<~$}/])/(?:[w]ork|[r]oot|[U]sers|[o]pt/(?:pypi|wheels))/\w|[p]ypi\.org|[p]ythonhosted"
)


@cache
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        result: dict[str, Any] = tomllib.load(file)
        return result


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins(file: str) -> dict[str, str]:
    lines = (
        line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
    )
    found = {}
    for line in filter(None, lines):
        name, separator, version = line.partition("==")
        assert separator, f"{file}: {line}: not an exact version"
        assert canonical(name) not in found, f"{file}: {name}: twice"
        found[canonical(name)] = version
    return found


def project_files() -> list[Path]:
    """The files that are tracked, or would be: whatever git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def makefile_targets() -> dict[str, str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z]+):[^#\n]*## (.+)$", text, flags=re.MULTILINE))


def test_the_makefile_has_every_target_and_help_names_each() -> None:
    assert makefile_targets().keys() >= TARGETS
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target, purpose in makefile_targets().items():
        assert re.search(rf"^ +make {target} +{re.escape(purpose)}$", shown, flags=re.MULTILINE), target


def test_every_make_command_that_the_readme_shows_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^|`|\$ )make ([a-z]+)", text, flags=re.MULTILINE))
    assert "test" in shown
    assert shown <= makefile_targets().keys()


def test_every_direct_dependency_is_pinned() -> None:
    extras: dict[str, list[str]] = project()["project"]["optional-dependencies"]
    library = {"cpu", "gpu", "encoder", "text"}
    checkout = {"serve", "train", "parquet", "study", "loadtest", "tracing", "bench", "chaos", "peers", "dev"}
    assert set(extras) == library | checkout
    direct = {
        canonical(each)
        for group in [project()["project"]["dependencies"], *extras.values()]
        for each in group
    }
    assert direct <= pins("constraints.txt").keys()


def test_pins_are_sorted_public_versions() -> None:
    pinned = pins("constraints.txt")
    assert list(pinned) == sorted(pinned)
    assert not [name for name, version in pinned.items() if "+" in version]
    assert not pins("data-wheels.txt").keys() & pinned.keys()


def test_the_library_needs_no_server_no_torch_and_no_choice_of_runtime() -> None:
    extras: dict[str, list[str]] = project()["project"]["optional-dependencies"]
    base = {canonical(each) for each in project()["project"]["dependencies"]}
    others = {canonical(each) for group in extras.values() for each in group}
    assert not base & others
    serving = {canonical(each) for each in extras["serve"]}
    assert serving >= {canonical(each) for each in extras["text"] + extras["encoder"]}
    assert not serving & {canonical(each) for each in extras["train"]}


def test_the_image_installs_no_training_packages() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"pip install\b", text)
    installed = re.sub(r"#.*", "", text)
    for package in ("torch", "transformers", "train", "locust", "data-wheels"):
        assert not re.search(rf"\b{package}\b", installed), package


def test_each_room_has_an_import_contract_and_the_library_is_packaged() -> None:
    contracts = project()["tool"]["importlinter"]["contracts"]
    assert {room for contract in contracts for room in contract["source_modules"]} == set(ROOMS) - {
        "benchmarks"
    }
    included = project()["tool"]["setuptools"]["packages"]["find"]["include"]
    assert included == ["structural_kd*"]
    for room in ROOMS:
        assert (ROOT / room / "__init__.py").is_file()


def test_no_file_holds_a_path_of_one_machine_or_the_host_of_a_registry() -> None:
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        found = OF_ONE_MACHINE.search(content.decode("utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"
