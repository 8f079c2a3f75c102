"""The real command in real processes: it drains, reloads and survives."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.conftest import answer, connect, head, until

ROOT = Path(__file__).parents[2]
WORKERS = 2
ADA = json.dumps({"texts": ["Ada sleeps."]})
JSON = {"Content-Type": "application/json"}
OLD_KEY, NEW_KEY = "old-key-of-the-test", "new-key-of-the-test"


def publish(bundles: Path, name: str, **says: Any) -> None:
    """A bundle that is there as a whole or not at all."""
    hidden = bundles / ".new"
    hidden.mkdir()
    (hidden / "manifest.json").write_text(json.dumps(says))
    (bundles / name).parent.mkdir(exist_ok=True)
    hidden.rename(bundles / name)


@dataclass
class Server:
    """A running command."""

    process: "subprocess.Popen[bytes]"
    bundles: Path
    log_file: Path

    def log(self) -> list[dict[str, Any]]:
        """The lines that are written whole; each must be JSON."""
        whole, _, _ = self.log_file.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.split("\n") if line]

    def logged(self, message: str) -> set[int]:
        """The processes that logged a message."""
        return {line["pid"] for line in self.log() if re.search(message, line["message"])}

    def client(self, **options: Any) -> httpx.Client:
        until(lambda: self.logged("Listening at"))
        (url,) = re.findall(r"Listening at: (\S+)", self.log_file.read_text())
        return httpx.Client(base_url=url, timeout=30, trust_env=False, **options)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit status."""
        return self.process.wait(timeout=60)


@contextmanager
def running(folder: Path, *command: str, **variables: str) -> Iterator[Server]:
    """A command of tests.serve.fake_server over folder/bundles, on a free port of 127.0.0.1."""
    settings = {"BUNDLES": str(folder / "bundles"), "HOST": "127.0.0.1", "PORT": "0", "WORKERS": str(WORKERS)}
    log_file = folder / "log"
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.fake_server", *command],
            cwd=ROOT,
            env=os.environ | {f"SERVE_{name}": value for name, value in (settings | variables).items()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(process, folder / "bundles", log_file)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def started(server: Server) -> Server:
    """The same server, as soon as all its workers serve."""
    until(lambda: server.process.poll() is not None or len(server.logged("startup complete")) >= WORKERS)
    assert server.process.poll() is None, server.log_file.read_text()
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose bundles and keys the tests change. Requests of the header `keyed` are let in."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "bundles").mkdir()
    publish(folder / "bundles", "ner/1")
    keys = folder / "keys.txt"
    keys.touch(mode=0o600)
    keys.write_text(OLD_KEY)
    with running(folder, "serve", API_KEYS=str(keys), ACCESS_LOG="true", DRAIN_SECONDS="0") as server:
        yield started(server)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client that takes a new connection for each request, so that it meets every worker."""
    headers = {"X-API-Key": OLD_KEY, "Connection": "close"} | JSON
    with server.client(headers=headers) as client:
        yield client


@contextmanager
def asked_all_the_time(client: httpx.Client) -> Iterator[Counter[Any]]:
    """Counts the answers to requests of a few threads meanwhile: (status, model), or the exception's name."""
    seen: Counter[Any] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = client.post("/ner", content=ADA)
                seen[answer.status_code, answer.json()["model"]] += 1
            except Exception as error:
                seen[type(error).__name__] += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: seen)
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_sighup_brings_a_new_version_into_use_and_no_request_fails(
    server: Server, client: httpx.Client
) -> None:
    with asked_all_the_time(client) as seen:
        publish(server.bundles, "ner/2")
        server.signal(signal.SIGHUP)
        until(lambda: len(server.logged(r"ner@2, version 2: in use")) == WORKERS)
        before = seen[200, "ner@2"]
        until(lambda: seen[200, "ner@2"] > before)
    assert set(seen) == {(200, "ner@1"), (200, "ner@2")}
    answers = [client.post("/ner", content=ADA).json()["model"] for _ in range(10)]
    assert set(answers) == {"ner@2"}


def test_sighup_refuses_a_broken_bundle_and_the_old_one_goes_on(server: Server, client: httpx.Client) -> None:
    model = client.post("/ner", content=ADA).json()["model"]
    with asked_all_the_time(client) as seen:
        publish(server.bundles, "ner/3", broken=True)
        server.signal(signal.SIGHUP)
        until(lambda: len(server.logged(r"ner@3 is refused.*model.onnx was changed")) == WORKERS)
        before = seen[200, model]
        until(lambda: seen[200, model] > before)
        refused = client.get("/models").json()["refused"]
    assert set(seen) == {(200, model)}
    assert [each["id"] for each in refused] == ["ner@3"]
    (server.bundles / "ner/3/manifest.json").unlink()


def test_sighup_reads_the_api_keys_again(server: Server, client: httpx.Client) -> None:
    def status(key: str) -> int:
        return client.post("/ner", content=ADA, headers={"X-API-Key": key}).status_code

    def reload(name: str) -> None:
        # Keys are read before bundles, so a bundle in use tells that they were.
        publish(server.bundles, name)
        server.signal(signal.SIGHUP)
        until(lambda: len(server.logged(f"model {name}.*: in use")) == WORKERS)

    keys = server.bundles.parent / "keys.txt"
    assert (status(OLD_KEY), status(NEW_KEY)) == (200, 401)
    keys.write_text(f"{OLD_KEY}\nnew:{NEW_KEY}\n")
    reload("other-1")
    assert {(status(OLD_KEY), status(NEW_KEY)) for _ in range(5)} == {(200, 200)}
    keys.write_text("short\n")
    reload("other-2")
    assert len(server.logged("a key must have 16 characters or more.*go on")) == WORKERS
    assert {(status(OLD_KEY), status(NEW_KEY)) for _ in range(5)} == {(200, 200)}
    keys.write_text(OLD_KEY)
    reload("other-3")
    assert {(status(OLD_KEY), status(NEW_KEY)) for _ in range(5)} == {(200, 401)}


def workers(client: httpx.Client) -> float:
    """What /metrics says of how many serve."""
    (number,) = re.findall(r"^serve_workers (\S+)$", client.get("/metrics").text, flags=re.MULTILINE)
    return float(number)


@pytest.mark.parametrize("broken", [False, True])
def test_a_killed_worker_is_replaced_also_while_a_bundle_is_broken(
    server: Server, client: httpx.Client, broken: bool
) -> None:
    if broken:
        publish(server.bundles, "broken", broken=True)
    lived = server.logged("startup complete")
    until(lambda: workers(client) == WORKERS)
    killed = max(lived)
    os.kill(killed, signal.SIGKILL)
    until(lambda: server.logged(rf"Worker \(pid:{killed}\) was sent SIGKILL"))
    assert client.post("/ner", content=ADA).status_code == 200
    until(lambda: server.logged("startup complete") - lived)
    (new,) = server.logged("startup complete") - lived
    until(lambda: workers(client) == WORKERS)
    assert {client.post("/ner", content=ADA).status_code for _ in range(10)} == {200}
    assert (new in server.logged("model broken is refused")) is broken
    assert server.process.poll() is None


def test_log_lines_are_json_and_hold_no_text_of_a_request(server: Server, client: httpx.Client) -> None:
    def post(path: str, content: str, **headers: str) -> int:
        return client.post(path, content=content.encode(), headers=headers).status_code

    secret = "Sekretwort"
    assert post("/ner", json.dumps({"texts": [secret]})) == 200
    assert post("/ner", json.dumps({"sentences": [[secret, "poison"]]})) == 500
    assert post("/ner", json.dumps({secret: [secret]})) == 422
    assert post("/ner", secret) == 400
    assert post("/ner", json.dumps({"texts": [secret], "model": secret})) == 404
    assert post(f"/{secret}?{secret}", secret) == 404
    assert post("/ner", ADA, **{"X-API-Key": secret * 2}) == 401
    assert post("/ner", ADA, **{"X-Request-Timeout": secret, "X-Request-Id": secret + "!"}) == 400
    lines = f'{{"text": "{secret}", "id": "{secret}"}}\n{{"tokens": ["{secret}", "poison"]}}\n{secret}\n'
    assert post("/ner/stream", lines, **{"Content-Type": "application/jsonl"}) == 200
    with connect(client) as connection:
        connection.sendall(f"{secret}\r\n\r\n".encode())
        assert answer(connection).status == 400
    assert client.get("/livez", headers={"X-Request-Id": "the-last"}).status_code == 200
    until(lambda: any(line.get("request_id") == "the-last" for line in server.log()))
    assert secret not in server.log_file.read_text()
    for line in server.log():
        assert {"time", "level", "logger", "pid", "message"} <= line.keys()


def ask_until_refused(client: httpx.Client, path: str, *, keep_alive: bool) -> Counter[Any]:
    """Counts statuses; a connection that was made ends with a whole answer, or it is counted as lost.

    The kernel makes connections on its own, until the moment in which nobody listens any more: the last one
    may be reset without the server ever having seen it. It counts as refused if the one after it is refused
    too; whether the server answered it all the same is for the caller to see in the log.
    """
    seen: Counter[Any] = Counter()
    headers = JSON if keep_alive else JSON | {"Connection": "close"}
    reset: str | None = None
    while True:
        connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
        try:
            connection.connect()
        except (ConnectionRefusedError, ConnectionResetError):  # the latter amid the handshake
            return seen
        if reset:
            seen[reset] += 1
            reset = None
        answered = False
        try:
            while True:
                connection.request("GET" if path == "/readyz" else "POST", path, ADA, headers)
                answer = connection.getresponse()
                answered = True
                json.loads(answer.read())
                seen[answer.status] += 1
                if answer.will_close:
                    break
        except (ConnectionResetError, BrokenPipeError) as error:
            reset = f"lost: {error!r}"
            if answered:
                seen[reset] += 1
                reset = None
        except (OSError, ValueError, http.client.HTTPException) as error:
            seen[f"lost: {error!r}"] += 1
        finally:
            connection.close()


def test_sigterm_ends_the_server_with_every_accepted_request_answered(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    publish(tmp_path / "bundles", "ner", delay=0.02)
    seen: dict[str, Counter[Any]] = {}

    def ask(name: str, path: str, keep_alive: bool) -> None:
        seen[name] = ask_until_refused(asked, path, keep_alive=keep_alive)

    with running(tmp_path, "serve", DRAIN_SECONDS="1", ACCESS_LOG="true") as server:
        asked = started(server).client()
        askers = [("ready", "/readyz", False)]
        askers += [(f"{number}, kept: {kept}", "/ner", kept) for number in range(3) for kept in (True, False)]
        threads = [threading.Thread(target=ask, args=each) for each in askers]
        for thread in threads:
            thread.start()
        with connect(asked) as stream:
            opened = head("/ner/stream", "Transfer-Encoding: chunked", content_type="application/jsonl")
            stream.sendall(opened)
            results = answer(stream)
            server.signal(signal.SIGTERM)
            until(lambda: len(server.logged("draining")) == WORKERS)
            for thread in threads:
                thread.join(60)
            # Nobody is let in any more; what was let in goes on.
            stream.sendall(b'14\r\n{"tokens": ["Ada"]}\n\r\n0\r\n\r\n')
            assert json.loads(results.read())["entities"]
        assert server.end() == 0
    logged = Counter(line["path"] for line in server.log() if line["logger"] == "serve.access")
    assert set(seen.pop("ready")) == {200, 503}
    assert len(seen) == 6
    assert logged["/ner"] == sum(counted.total() for counted in seen.values())
    assert {status for counted in seen.values() for status in counted} == {200}
    (folder,) = {line["message"] for line in server.log() if line["message"].startswith("metrics folder: ")}
    assert not Path(folder.removeprefix("metrics folder: ")).exists()


def test_a_bundle_that_is_broken_at_the_first_start_ends_the_server_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    publish(tmp_path / "bundles", "good")
    publish(tmp_path / "bundles", "bad", broken=True)
    with running(tmp_path, "serve") as server:
        assert server.end() == 3
    assert server.logged(re.escape(str(tmp_path / "bundles" / "bad")) + ".*model.onnx was changed")
    (folder,) = {line["message"] for line in server.log() if line["message"].startswith("metrics folder: ")}
    assert not Path(folder.removeprefix("metrics folder: ")).exists()


def test_gunicorn_itself_can_run_the_application(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    publish(tmp_path / "bundles", "ner")
    with running(tmp_path, "gunicorn", "serve.app:app", DRAIN_SECONDS="0") as server:
        with started(server).client() as client:
            assert client.post("/ner", content=ADA, headers=JSON).json()["model"] == "ner"
            until(lambda: workers(client) == WORKERS)
        server.signal(signal.SIGTERM)
        assert server.end() == 0


PREPARE_SEVERAL = """
from serve.process.master import prepare
from serve.settings import Settings

for host, keys in (("0.0.0.0", None), ("::", None), ("127.0.0.1", None), ("0.0.0.0", "keys")):
    prepare(Settings(host=host, port=1, api_keys=keys))
"""


def test_an_open_address_without_keys_is_warned_of() -> None:
    log = subprocess.run(
        [sys.executable, "-c", PREPARE_SEVERAL],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    ).stderr  # fmt: skip
    assert re.findall(r"NO API KEYS: everybody who reaches (\S+):1", log) == ["0.0.0.0", "::"]
