"""A small BERT in a folder for the tests of encoders, and no network for any of them."""

from pathlib import Path

import pytest
import transformers

from tests.train.models.small_bert import copy_files, write_bert
from train.models.encoders import Encoder, load_encoder


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty-cache"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return write_bert(tmp_path_factory.mktemp("encoder"), transformers.BertModel)


@pytest.fixture
def encoder(folder) -> Encoder:
    return load_encoder(str(folder))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts the files of a folder into the Hugging Face cache under a name; gives the snapshot's folder."""

    def put(name: str, folder: Path) -> Path:
        snapshot = tmp_path / "cache" / f"models--{name.replace('/', '--')}" / "snapshots" / "0123"
        (snapshot.parents[1] / "refs").mkdir(parents=True)
        (snapshot.parents[1] / "refs" / "main").write_text("0123")
        copy_files(folder, snapshot)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        return snapshot

    return put
