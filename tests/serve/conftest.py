"""A server over a real socket, with given predictors; and connections on which tests send what they like."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from serve.app import create_app
from serve.process.protocol import Protocol
from serve.settings import Settings
from tests.serve.fakes import FakeNer, FakeParser, HeldNer


class Client(httpx.Client):
    """A client of a server in this process, which the test can look into."""

    app: FastAPI

    def waiting(self) -> int:
        """The sentences that wait for the server's first model."""
        return len(self.app.state.service.models.all[0].batcher._queue)


Serve = Callable[..., Client]

ADA = {"texts": ["Ada sleeps."]}


def until(condition: Callable[[], object]) -> None:
    """Returns as soon as something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


def connect(client: httpx.Client) -> socket.socket:
    """A connection to a client's server."""
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30)


def head(path: str, *headers: str, content_type: str = "application/json") -> bytes:
    """The head of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Type: {content_type}", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def answer(connection: socket.socket) -> HTTPResponse:
    """The head of the next answer on a connection, whose body can be read as it comes."""
    response = HTTPResponse(connection)
    response.begin()
    return response


def request(sentences: int, *headers: str, word: str = "w") -> bytes:
    """A request of so many sentences of one word each."""
    body = json.dumps({"sentences": [[word]] * sentences}).encode()
    return head("/ner", f"Content-Length: {len(body)}", *headers) + body


def problem(response: HTTPResponse | httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is a problem."""
    assert response.headers["Content-Type"] == "application/problem+json"
    if isinstance(response, httpx.Response):
        return response.status_code, response.json()["code"]
    return response.status, json.loads(response.read())["code"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of tests that are coroutines."""
    return "asyncio"


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """serve({"name": predictor, ...}, **settings) starts a server and gives a client of it.

    With a `folder` and a `load` it serves what lies there instead.
    """
    started: list[tuple[Client, uvicorn.Server, threading.Thread, socket.socket]] = []

    def start(
        predictors: dict[str, Any], *, folder: Path | None = None, load: Any = None, **settings: Any
    ) -> Client:
        bundles = folder or tmp_path_factory.mktemp("bundles")
        for name in predictors:
            (bundles / name).mkdir()
            (bundles / name / "manifest.json").write_text("{}")

        def given(folder: Path, _: Settings) -> Any:
            return predictors[folder.name]

        chosen = Settings(bundles=bundles, **settings)
        app = create_app(chosen, load=load or given)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol: Any = partial(Protocol, settings=chosen, admission=app.state.service.admission)
        options: dict[str, Any] = {"timeout_keep_alive": chosen.keep_alive_seconds}
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, http=protocol, **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(base_url=address, timeout=20, trust_env=False)
        client.app = app

        started.append((client, server, thread, listener))
        return client

    yield start
    for client, server, _, _ in started:
        client.close()
        server.should_exit = True
    for _, _, thread, listener in started:
        thread.join(timeout=20)
        listener.close()


@pytest.fixture(scope="session")
def client(serve: Serve) -> Client:
    """A server with one model for each task and the usual limits."""
    return serve({"names": FakeNer(), "trees": FakeParser()})


@pytest.fixture(scope="session")
def held_server(serve: Serve) -> tuple[HeldNer, Client]:
    engine = HeldNer()
    return engine, serve({"names": engine}, max_queue_sentences=40)


@pytest.fixture
def held(held_server: tuple[HeldNer, Client]) -> Iterator[tuple[HeldNer, Client]]:
    """A server whose engine is held until the test opens its gate; 40 sentences may wait."""
    engine, client = held_server
    engine.gate.clear()
    engine.runs.clear()
    yield engine, client
    engine.gate.set()
    until(lambda: client.post("/ner", json={"texts": ["End."]}).status_code == 200)
