"""How the server starts, and how it refuses to."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest

from serve.app import create_app
from serve.models.discovery import StartError, find_bundles
from serve.settings import Settings
from structural_kd.session import DEVICES
from tests.serve.fakes import FakeManifest, FakeNer

ROOT = Path(__file__).parents[2]


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def bundle_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize("there", [True, False])
def test_the_command_without_bundles_says_how_to_make_them(tmp_path: Path, there: bool) -> None:
    bundles = tmp_path / "bundles"
    if there:
        (bundles / "no-manifest").mkdir(parents=True)
    ended = command("--bundles", str(bundles))
    assert ended.returncode == 2
    assert str(bundles) in ended.stderr
    assert "make distill" in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["--port", "70000"], {}, "port"),
        (["--workers", "0"], {}, "workers"),
        (["--device", "tpu"], {}, "device"),
        ([], {"SERVE_THREADS": "many"}, "threads"),
        ([], {"SERVE_LIMITS__ITEMS": "0"}, "limits.items"),
        (["--limits.items", "0"], {}, "limits.items"),
        (["--wrokers", "2"], {}, "wrokers"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], named: str
) -> None:
    bundle_at(tmp_path / "ner")
    ended = command("--bundles", str(tmp_path), *arguments, **variables)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_help_has_options_variables_and_examples() -> None:
    ended = command("--help")
    assert ended.returncode == 0
    for word in ("make distill", "--bundles", "--workers", "SERVE_LIMITS__ITEMS", "curl", "/ner"):
        assert word in ended.stdout


TWO_THAT_FAIL_WHILE_IT_STOPS = """
import os, signal, time
from types import SimpleNamespace
from serve.process.master import GunicornServer, Master
from serve.settings import Settings

master = Master(GunicornServer(Settings(workers=2)))
for seconds in (0.3, 0.6):
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(seconds)
        os._exit(Master.WORKER_BOOT_ERROR)
    master.WORKERS[pid] = SimpleNamespace(pid=pid, tmp=open(os.devnull))
time.sleep(0.1)
master.halt("a worker failed to boot", Master.WORKER_BOOT_ERROR)
"""


def test_workers_that_fail_one_after_the_other_end_the_server_with_its_own_status() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWO_THAT_FAIL_WHILE_IT_STOPS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_option_wins_over_a_variable_that_is_wrong(tmp_path: Path) -> None:
    folder = bundle_at(tmp_path / "broken")
    ended = command("--bundles", str(tmp_path), "--port", "0", SERVE_PORT="many", SERVE_BUNDLES="elsewhere")
    assert ended.returncode == 3
    assert str(folder) in ended.stderr


def test_every_option_reaches_the_workers_as_a_variable() -> None:
    prepare = (
        "from serve.process.master import prepare; from serve.settings import Settings\n"
        "prepared = prepare(Settings(port=2, limits={'items': 7}, defaults={'ner': 'a'}, tracing=True))\n"
        "assert prepared.workers and prepared.threads\n"
        "assert Settings() == prepared, Settings()"
    )
    variables = {"SERVE_PORT": "1", "SERVE_HOST": "::1", "SERVE_LIMITS__ITEMS": "5", "SERVE_API_KEYS": "keys"}
    subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=os.environ | variables, check=True)


def test_every_device_has_its_provider_and_the_cpu_behind_it() -> None:
    assert tuple(DEVICES) == get_args(Settings.model_fields["device"].annotation)
    assert all(providers[-1] == "CPUExecutionProvider" for providers in DEVICES.values())
    assert [DEVICES[name][0] for name in ("cpu", "cuda", "tensorrt")] == [
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "TensorrtExecutionProvider",
    ]


def test_sub_folders_with_a_manifest_are_the_bundles_in_the_order_of_their_names(tmp_path: Path) -> None:
    folders = [bundle_at(tmp_path / name) for name in ("b", "a", "c")]
    (tmp_path / "other").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    bundle_at(tmp_path / "other" / "deeper")
    assert [found.folder for found in find_bundles(tmp_path)] == sorted(folders)


def start(bundles: Path, predictor: Any, **settings: Any) -> None:
    def load(_: Path, __: Settings) -> Any:
        if isinstance(predictor, Exception):
            raise predictor
        return predictor

    app = create_app(Settings(bundles=bundles, **settings), load=load)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            pass

    anyio.run(run)


@pytest.mark.parametrize(
    ("predictor", "said"),
    [
        (ValueError("model.onnx was changed"), "model.onnx was changed"),
        (FakeNer(FakeManifest(task="srl")), "srl"),
    ],
)
def test_a_bundle_that_cannot_be_served_stops_the_start_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, predictor: Any, said: str
) -> None:
    folder = bundle_at(tmp_path / "broken")
    with caplog.at_level(logging.ERROR), pytest.raises(StartError, match=said) as raised:
        start(tmp_path, predictor)
    assert str(folder) in str(raised.value)
    assert str(folder) in caplog.text
