"""Which model answers, and how new ones take over while others are in use."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.models.discovery import StartError, find_bundles
from serve.models.reload import Registry
from serve.models.selection import Models
from serve.settings import Settings
from tests.serve.conftest import Serve, until
from tests.serve.fakes import FakeManifest, FakeNer, FakeParser


def write_bundle(folder: Path, **says: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "manifest.tmp"
    temporary.write_text(json.dumps(says))
    temporary.replace(folder / "manifest.json")
    return folder


def load(folder: Path, _: Settings) -> Any:
    """A predictor as the folder's manifest says; "broken" does not load."""
    says = json.loads((folder / "manifest.json").read_text())
    if says.get("broken"):
        raise ValueError("model.onnx was changed")
    manifest = FakeManifest(
        task=says.get("task", "ner"), role=says.get("role", "student"), digest=says.get("digest", "0" * 64)
    )
    return FakeParser(manifest) if manifest.task == "parse" else FakeNer(manifest)


def registry(bundles: Path, **options: Any) -> Registry:
    return Registry(Settings(bundles=bundles), load, **options)


def ids(models: Models | None) -> list[str]:
    assert models is not None
    return [model.id for model in models.all]


def test_versions_lie_side_by_side_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for path in ("ner/9", "ner/10", "ner/v2.1", "tags", "parse/2026-11-25", "parse/not-a-version", ".copy/1"):
        write_bundle(tmp_path / path)
    assert [found.id for found in find_bundles(tmp_path)] == [
        "ner@v2.1",
        "ner@9",
        "ner@10",
        "parse@2026-11-25",
        "tags",
    ]


def test_a_name_means_its_newest_version_and_an_id_exactly_one(serve_folder: "ServeFolder") -> None:
    _, client = serve_folder({"ner/1": {}, "ner/2": {}, "other": {}})
    ask = {"texts": ["Ada"]}
    assert client.post("/ner", json=ask).json()["model"] == "ner@2"
    assert client.post("/ner", json=ask | {"model": "ner"}).json()["model"] == "ner@2"
    assert client.post("/ner", json=ask | {"model": "ner@1"}).json()["model"] == "ner@1"
    refused = client.post("/ner", json=ask | {"model": "ner@3"})
    assert refused.json()["code"] == "unknown_model"
    assert "'ner@2'" in refused.json()["detail"]
    listed = client.get("/models").json()["models"]
    assert [(model["id"], model["name"], model["version"], model["default"]) for model in listed] == [
        ("ner@1", "ner", "1", False),
        ("ner@2", "ner", "2", True),
        ("other", "other", "0" * 12, False),
    ]


def test_the_settings_choose_the_default_of_a_task(serve_folder: "ServeFolder") -> None:
    _, client = serve_folder({"ner/1": {}, "ner/2": {}, "other": {}}, defaults={"ner": "other"})
    assert client.post("/ner", json={"texts": ["a"]}).json()["model"] == "other"
    _, client = serve_folder({"ner/1": {}, "ner/2": {}}, defaults={"ner": "ner@1"})
    assert client.post("/ner", json={"texts": ["a"]}).json()["model"] == "ner@1"
    _, client = serve_folder({"ner": {}}, defaults={"ner": "absent"})
    answer = client.post("/ner", json={"texts": ["a"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_model_for_task")
    assert "'absent'" in answer.json()["detail"]


@pytest.mark.anyio
async def test_new_changed_and_removed_bundles_are_noticed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", digest="1")
    write_bundle(tmp_path / "b")
    watched = registry(tmp_path)
    await watched.start()
    before = watched.models
    assert await watched.refresh() is False
    assert watched.models is before
    write_bundle(tmp_path / "c")
    write_bundle(tmp_path / "a", digest="2")
    (tmp_path / "b" / "manifest.json").unlink()
    assert await watched.refresh() is True
    assert ids(watched.models) == ["a", "c"]
    assert watched.models is not None
    assert watched.models.all[0].version == "2"


@pytest.mark.anyio
async def test_unchanged_bundles_are_not_loaded_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a")
    watched = registry(tmp_path)
    await watched.start()
    assert watched.models is not None
    kept = watched.models.all[0]
    write_bundle(tmp_path / "b")
    await watched.refresh()
    assert watched.models.all[0] is kept


@pytest.mark.anyio
async def test_a_broken_bundle_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_bundle(tmp_path / "a", digest="1")
    watched = registry(tmp_path)
    await watched.start()
    assert watched.models is not None
    kept = watched.models.all[0]
    write_bundle(tmp_path / "a", broken=True)
    write_bundle(tmp_path / "new", broken=True)
    await watched.refresh()
    assert watched.models.all == (kept,)
    assert set(watched.models.refused) == {"a", "new"}
    assert "model.onnx was changed" in watched.models.refused["a"]
    assert "model.onnx was changed" in caplog.text
    caplog.clear()
    await watched.refresh()
    assert not caplog.records, "said again without need"
    write_bundle(tmp_path / "a", digest="3")
    await watched.refresh()
    assert watched.models.all[0].version == "3"
    assert set(watched.models.refused) == {"new"}


@pytest.mark.anyio
async def test_an_emptied_folder_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_bundle(tmp_path / "a")
    watched = registry(tmp_path)
    await watched.start()
    (folder / "manifest.json").unlink()
    assert await watched.refresh() is False
    assert ids(watched.models) == ["a"]
    assert "what is loaded goes on" in caplog.text


@pytest.mark.anyio
async def test_a_server_that_starts_refuses_a_broken_bundle_and_a_replaced_worker_goes_on_without_it(
    tmp_path: Path,
) -> None:
    write_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b", broken=True)
    with pytest.raises(StartError, match=str(tmp_path / "b")):
        await registry(tmp_path).start()
    watched = registry(tmp_path)
    await watched.start(strict=False)
    assert ids(watched.models) == ["a"]
    write_bundle(tmp_path / "a", broken=True)
    with pytest.raises(StartError):
        await registry(tmp_path).start(strict=False)


def test_a_watched_folder_switches_by_itself_and_no_request_fails(serve_folder: "ServeFolder") -> None:
    bundles, client = serve_folder({"ner/1": {}}, watch_seconds=0.02)
    statuses: set[int] = set()
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=20, trust_env=False) as own:
            while not stop.is_set():
                statuses.add(own.post("/ner", json={"texts": ["Ada"]}).status_code)

    asker = threading.Thread(target=ask)
    asker.start()

    def listed() -> tuple[str, int]:
        """The newest model, and the number of refused bundles."""
        found = client.get("/models").json()
        return found["models"][-1]["id"], len(found["refused"])

    try:
        until(lambda: statuses)
        for version in range(2, 6):
            write_bundle(bundles / "ner" / str(version))
            write_bundle(bundles / f"broken{version}", broken=True)
            until(lambda: listed() == (f"ner@{version}", version - 1))  # noqa: B023
    finally:
        stop.set()
        asker.join(20)
    assert statuses == {200}


def test_a_request_is_answered_by_the_model_that_it_began_with(serve_folder: "ServeFolder") -> None:
    bundles, client = serve_folder({"ner/1": {}}, watch_seconds=0.02)

    def body() -> Iterator[bytes]:
        yield b'{"texts": ["Ada'
        write_bundle(bundles / "ner" / "2")
        until(lambda: client.get("/models").json()["models"][-1]["id"] == "ner@2")
        yield b'"]}'

    answer = client.post("/ner", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["model"] in ("ner@1", "ner@2")
    assert client.post("/ner", json={"texts": ["Ada"]}).json()["model"] == "ner@2"


ServeFolder = Any


@pytest.fixture
def serve_folder(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> ServeFolder:
    """serve_folder({path: manifest}, **settings): a folder that the test may change, and a client."""

    def start(bundles: dict[str, dict[str, Any]], **settings: Any) -> tuple[Path, httpx.Client]:
        folder = tmp_path_factory.mktemp("models")
        for path, says in bundles.items():
            write_bundle(folder / path, **says)
        return folder, serve({}, folder=folder, load=load, **settings)

    return start


@pytest.fixture(autouse=True)
def log_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="serve")
