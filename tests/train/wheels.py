"""Wheels for tests, as an installer leaves them."""

from pathlib import Path

import pytest

from train.offline import WheelFile, file_sha256


def install(
    site: Path, monkeypatch: pytest.MonkeyPatch, package: str, file: str, content: bytes
) -> WheelFile:
    """Put a package with a data file on the path alone; importing it would end the test run."""
    path = site / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (site / file.split("/")[0] / "__init__.py").write_text("raise SystemExit")
    information = site / f"{package.replace('-', '_')}-1.0.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    return WheelFile(package, "1.0", file, file_sha256(path))
