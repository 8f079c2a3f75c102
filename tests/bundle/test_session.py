"""Sessions: the provider asked for or an error, no telemetry, nothing opened at import."""

import logging
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from bundle.manifest import BundleError
from bundle.session import check_installed, open_session


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    node = helper.make_node("Neg", ["x"], ["y"])
    body = helper.make_graph([node], "negation", value[:1], value[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def test_a_provider_that_is_not_there_is_an_error_that_names_it(graph):
    with pytest.raises(BundleError, match="CUDAExecutionProvider is not in this onnxruntime"):
        open_session(graph, providers=["CUDAExecutionProvider"])


def test_a_fallback_that_is_allowed_is_logged(graph, caplog):
    with caplog.at_level(logging.WARNING):
        session = open_session(graph, providers=["CUDAExecutionProvider"], allow_fallback=True)
    assert session.providers == ("CPUExecutionProvider",)
    assert "falling back to CPUExecutionProvider" in caplog.text


def test_a_graph_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"broken\.onnx"):
        open_session(tmp_path / "broken.onnx")


@pytest.mark.parametrize("packages", [[], ["onnxruntime", "onnxruntime-gpu"]])
def test_none_or_both_packages_of_onnxruntime_are_an_error_that_says_what_to_do(packages):
    with pytest.raises(BundleError, match="pip uninstall onnxruntime onnxruntime-gpu"):
        check_installed(packages)
    check_installed(["onnxruntime-gpu"])


def test_no_threads_are_an_error(graph):
    with pytest.raises(ValueError, match="threads"):
        open_session(graph, threads=0)


def test_importing_the_room_imports_no_runtime_and_opening_turns_telemetry_off(graph):
    code = (
        "import os, sys, pathlib, bundle\n"
        "assert 'onnxruntime' not in sys.modules and 'tokenizers' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "from bundle.session import open_session\n"
        f"open_session(pathlib.Path({str(graph)!r}))\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
