"""A server over a real socket, with given predictors."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from serve.app import create_app
from serve.settings import Settings
from tests.serve.fakes import FakeNer, FakeParser

Serve = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """serve({"name": predictor, ...}, **settings) starts a server and gives a client of it."""
    stops: list[Callable[[], None]] = []

    def start(predictors: dict[str, Any], **settings: Any) -> httpx.Client:
        bundles = tmp_path_factory.mktemp("bundles")
        for name in predictors:
            (bundles / name).mkdir()
            (bundles / name / "manifest.json").write_text("{}")

        def load(folder: Path, _: Settings) -> Any:
            return predictors[folder.name]

        app = create_app(Settings(bundles=bundles, **settings), load=load)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server takes too long to start"
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = httpx.Client(base_url=address, timeout=20, trust_env=False)

        def stop() -> None:
            client.close()
            server.should_exit = True
            thread.join(timeout=20)
            listener.close()

        stops.append(stop)
        return client

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def client(serve: Serve) -> httpx.Client:
    """A server with one model for each task and the usual limits."""
    return serve({"names": FakeNer(), "trees": FakeParser()})
