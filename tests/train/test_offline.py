"""Files of wheels, npm packages and the web: found, checked, kept."""

import hashlib
import http.server
import io
import os
import sys
import tarfile
import threading
from dataclasses import replace

import pytest

from tests.train.wheels import install
from train import offline
from train.offline import NpmFile, UnavailableError, WheelFile


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STRUCTURAL_KD_CACHE", str(tmp_path))
    assert offline.cache_folder() == tmp_path
    monkeypatch.delenv("STRUCTURAL_KD_CACHE")
    assert offline.cache_folder().name == ".cache"
    assert (offline.cache_folder().parent / "train").is_dir()


def test_a_wheels_file_is_found_without_importing_it(tmp_path, monkeypatch):
    file = install(tmp_path, monkeypatch, "some-corpus", "some_corpus/data.conllu", b"text")
    assert file.find() == tmp_path / "some_corpus" / "data.conllu"
    assert "some_corpus" not in sys.modules


def test_a_file_that_is_not_installed_is_none_and_knows_how_to_install_it(tmp_path, monkeypatch):
    assert WheelFile("no-such-wheel", "1.0", "no_such/data", "0").find() is None
    file = install(tmp_path, monkeypatch, "other-wheel", "other_wheel/data", b"text")
    assert replace(file, file="other_wheel/missing").find() is None
    assert file.install == "pip install --no-deps other-wheel==1.0"


def test_a_changed_file_is_an_error_that_names_both_hashes_and_the_remedy(tmp_path, monkeypatch):
    file = replace(install(tmp_path, monkeypatch, "a-wheel", "a_wheel/data", b"changed"), sha256=sha256(b"x"))
    with pytest.raises(UnavailableError) as caught:
        file.find()
    for part in (str(tmp_path / "a_wheel" / "data"), sha256(b"changed"), sha256(b"x"), file.install):
        assert part in str(caught.value)


CONTENT = b'{"some": "content"}'
FILE = NpmFile("some-package", "1.2.3", "package/v.json", sha256(CONTENT))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that packs the package it is asked for, and notes what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    with tarfile.open(folder / "packed.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/v.json")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))

    def write(script):
        program = folder / "npm"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    write(f'echo "$@" >> {folder}/calls\ncp {folder}/packed.tgz some-package-1.2.3.tgz\n')
    write.calls = folder / "calls"
    return write


def test_a_file_of_an_npm_package_is_fetched_without_running_its_scripts(npm):
    assert FILE.fetch("") == CONTENT
    assert npm.calls.read_text().splitlines() == ["pack some-package@1.2.3 --silent --ignore-scripts"]


@pytest.mark.parametrize("changed", [{"sha256": "0" * 64}, {"file": "package/other.json"}])
def test_another_file_than_the_checked_one_is_refused(npm, changed):
    file = replace(FILE, **changed)
    with pytest.raises(UnavailableError, match=rf"{file.file}: SHA-256 is \w+, expected {file.sha256}"):
        file.fetch("")


def test_the_error_of_a_failing_npm_quotes_it_and_names_the_remedy(npm):
    npm("echo 'npm error network' >&2\nexit 1\n")
    with pytest.raises(
        UnavailableError, match=r"npm error network; .*npm pack some-package@1\.2\.3, or this"
    ):
        FILE.fetch("this")


def test_without_npm_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="npm is not installed, which fetches some-package@1"):
        FILE.fetch("")


def test_a_download_is_whole_or_an_error_that_names_other_places(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/file" else 404)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        offline.download(f"{address}/file", tmp_path / "new" / "file", "")
        with pytest.raises(UnavailableError, match=f"{address}/other cannot be downloaded .*404.* or a file"):
            offline.download(f"{address}/other", tmp_path / "new" / "other", "a file")
        server.shutdown()
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "new").iterdir()] == [("file", CONTENT)]
