"""Bundles on disk: written beside their place, checked there, and moved in whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from structural_kd.files import whole, write_whole
from structural_kd.manifest import MANIFEST, Manifest, describe_file

LARGEST_GRAPH = 2**31 - 1


@contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """A new folder that takes ``target``'s place when the block ends, and is removed if the block raises.

    A bundle that is there already is replaced: two renames, so that no half-written bundle can be seen. The
    folders beside ``target`` are hidden ones, which servers leave out.

    Raises:
        ValueError: ``target`` exists and is neither a bundle nor empty.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ValueError(f"{target}: exists and is not a folder; choose another --out")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise ValueError(
            f"{target}: holds files but no {MANIFEST}: no bundle to replace; choose another --out"
        )
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        with whole(target) as place:
            place.mkdir()
            yield place
            if target.exists():
                os.rename(target, old)
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(old, ignore_errors=True)


def write_graph(path: Path, graph: onnx.ModelProto) -> None:
    """Write a graph that passes ONNX's own checker."""
    if graph.ByteSize() > LARGEST_GRAPH:
        raise ValueError(f"{path.name}: {graph.ByteSize():,} bytes; one ONNX file holds {LARGEST_GRAPH:,}")
    onnx.checker.check_model(graph, full_check=True)
    write_whole(path, graph.SerializeToString())


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """List all files of the folder in the manifest, and write it."""
    files = {
        path.relative_to(folder).as_posix(): describe_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    complete = replace(manifest, files=files).sealed()
    write_whole(folder / MANIFEST, complete.to_json())
    return complete
