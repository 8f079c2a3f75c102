"""Sessions: the provider asked for or an error, no telemetry, nothing opened at import."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from structural_kd.manifest import BundleError, describe_file
from structural_kd.session import Signature, Value, check_installed, open_session


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    node = helper.make_node("Neg", ["x"], ["y"])
    body = helper.make_graph([node], "negation", value[:1], value[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


class Runtime:
    """In place of onnxruntime: it was built with some providers, and some of these start.

    One that does not start is left out in silence, as CUDA is without its libraries, or raises, as in
    `broken`.
    """

    __version__ = "0"

    def __init__(self, built: Sequence[str], started: Sequence[str], broken: Sequence[str] = ()) -> None:
        self.built, self.started, self.broken = built, started, broken
        self.asked: list[list[str]] = []

    def get_all_providers(self) -> list[str]:
        return [TENSORRT, CUDA, "OpenVINOExecutionProvider", CPU]

    def get_available_providers(self) -> list[str]:
        return list(self.built)

    def SessionOptions(self) -> Any:  # noqa: N802
        return SimpleNamespace(add_session_config_entry=lambda name, value: None)

    def InferenceSession(  # noqa: N802
        self, content: bytes, options: Any, *, providers: list[str], enable_fallback: int
    ) -> Any:
        assert isinstance(content, bytes)
        assert not enable_fallback, "onnxruntime would fall back by itself, also while it runs"
        assert set(providers) <= set(self.built)
        self.asked.append(providers)
        if providers[0] in self.broken:
            raise RuntimeError(f"{providers[0]} does not start")
        used = [name for name in providers if name in self.started]
        if CPU not in used:
            used.append(CPU)
        return SimpleNamespace(get_providers=lambda: used, get_inputs=list, get_outputs=list)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runtime]:
    """runtime(built, started, broken) takes onnxruntime's place."""

    def install(*providers: Sequence[str]) -> Runtime:
        fake = Runtime(*providers)
        monkeypatch.setattr("structural_kd.session._onnxruntime", lambda: fake)
        return fake

    return install


def test_a_provider_that_is_not_there_is_an_error_that_names_it(graph):
    with pytest.raises(BundleError, match="CUDAExecutionProvider is not in this onnxruntime"):
        open_session(graph, providers=[CUDA])


@pytest.mark.parametrize("providers", [["CUDA"], ["cpuexecutionprovider"], [""], [CPU, "GPU"]])
def test_an_unknown_provider_is_an_error_that_names_it(graph, providers):
    with pytest.raises(BundleError, match=f"{providers[-1]}: no provider of onnxruntime; it knows .*{CPU}"):
        open_session(graph, providers=providers)


ASKED = [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize(
    ("asked", "built", "started", "used"),
    [
        ([CUDA, CPU], [CUDA, CPU], [CUDA, CPU], [CUDA, CPU]),
        ([CUDA], [CUDA, CPU], [CUDA, CPU], [CUDA, CPU]),
        (ASKED, ASKED, ASKED, ASKED),
        (ASKED, ASKED, [TENSORRT, CPU], [TENSORRT, CPU]),
        ([CPU], ASKED, ASKED, [CPU]),
    ],
)
def test_a_provider_that_starts_is_used_and_reported(graph, runtime, asked, built, started, used):
    fake = runtime(built, started, [])
    assert open_session(graph, providers=asked).providers == tuple(used)
    assert fake.asked == [asked]


@pytest.mark.parametrize(
    ("asked", "built", "started", "broken"),
    [
        ([CUDA, CPU], [CPU], [CPU], []),  # the package for the CPU
        ([CUDA, CPU], [CUDA, CPU], [CPU], []),  # left out in silence
        ([CUDA], [CUDA, CPU], [CPU], [CUDA]),
        (ASKED, [CUDA, CPU], [CUDA, CPU], []),
        (ASKED, ASKED, [CUDA, CPU], []),
        (ASKED, ASKED, [CPU], [TENSORRT, CUDA]),
    ],
)
def test_a_provider_that_does_not_start_is_an_error_and_no_silent_fallback(
    graph, runtime, asked, built, started, broken
):
    runtime(built, started, broken)
    with pytest.raises(BundleError, match=f"{asked[0]}.* or ask for {CPU}"):
        open_session(graph, providers=asked)


def test_a_graph_of_other_bytes_than_expected_is_refused(graph):
    entry = describe_file(graph)
    assert open_session(graph, entry=entry).run(x=np.ones(2, np.float32))["y"].tolist() == [-1, -1]
    with graph.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"graph\.onnx: \d+ bytes"):
        open_session(graph, entry=entry)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"z": ("tensor(float)", 1)}, {}, "no input 'z'"),
        ({}, {}, "input 'x' is unknown"),
        (
            {"x": ("tensor(int64)", 1)},
            {},
            r"input 'x': expected tensor\(int64\) of rank 1, found tensor\(float\)",
        ),
        ({"x": ("tensor(float)", 1)}, {"z": ("tensor(float)", 1)}, "no output 'z'"),
        (
            {"x": ("tensor(float)", 1)},
            {"y": ("tensor(float)", 2)},
            "output 'y': .* of rank 2, found .* of rank 1",
        ),
    ],
)
def test_a_graph_of_another_signature_is_refused_by_name(graph, inputs, outputs, message):
    signature = Signature(
        {name: Value(*value) for name, value in inputs.items()},
        {name: Value(*value) for name, value in outputs.items()},
    )
    with pytest.raises(BundleError, match=rf"graph\.onnx: (has )?{message}"):
        open_session(graph, signature=signature)


def test_a_graph_may_lack_an_optional_input(graph):
    value = Value("tensor(float)", 1)
    signature = Signature({"x": value, "more": value}, {"y": value}, frozenset({"more"}))
    assert tuple(open_session(graph, signature=signature).inputs) == ("x",)


def test_a_graph_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"broken\.onnx"):
        open_session(tmp_path / "broken.onnx")
    with pytest.raises(BundleError, match=r"nothing\.onnx: cannot be read: No such file"):
        open_session(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("packages", [[], ["onnxruntime", "onnxruntime-gpu"]])
def test_none_or_both_packages_of_onnxruntime_are_an_error_that_names_the_remedy(packages):
    with pytest.raises(BundleError, match=r"pip uninstall onnxruntime .*structural-kd\[cpu\]"):
        check_installed(packages)
    check_installed(["onnxruntime-gpu"])


def test_no_threads_or_no_providers_are_an_error(graph):
    with pytest.raises(ValueError, match="threads"):
        open_session(graph, threads=0)
    with pytest.raises(ValueError, match="providers"):
        open_session(graph, providers=[])


def test_importing_the_room_imports_no_runtime_and_opening_turns_telemetry_off(graph):
    code = (
        "import os, sys, pathlib, structural_kd\n"
        "assert 'onnxruntime' not in sys.modules and 'tokenizers' not in sys.modules\n"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules\n"
        "from structural_kd.session import open_session\n"
        f"open_session(pathlib.Path({str(graph)!r}))\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
