"""How many cores the server thinks it has, under made-up control groups."""

import math
import os
from pathlib import Path

import pytest

from serve.process.cores import available_cores, quota, shares


def system(folder: Path, groups: str, **files: str) -> Path:
    """A root with these groups of the process, and files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups}.items() | {
        (f"sys/fs/cgroup/{name}", text) for name, text in files.items()
    }:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/pod/box\n", {"pod/box/cpu.max": "400000 100000\n", "pod/cpu.max": "200000 100000\n"}, 2),
        ("0::/pod/box\n", {"pod/box/cpu.max": "50000 100000\n", "pod/cpu.max": "max 100000\n"}, 0.5),
        ("0::/not/seen/from/inside\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/../../outside\n", {"cpu.max": "300000 100000\n"}, 3),
        ("3:cpu,cpuacct:/\n0::/\n",
         {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("1:cpu:/docker/box\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("3:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n", "cpuset/cpu.cfs_period_us": "1\n"}, math.inf),
        ("1:name=systemd:/\n0::/a:b\n", {"unified/a:b/cpu.max": "100000 100000\n"}, 1),
    ],
)  # fmt: skip
def test_the_lowest_quota_of_the_groups_of_the_process_counts(
    tmp_path: Path, groups: str, files: dict[str, str], cores: float
) -> None:
    assert quota(system(tmp_path, groups, **files)) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota(tmp_path) == math.inf
    assert available_cores(tmp_path) >= 1


def test_the_affinity_mask_and_the_quota_both_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3}, raising=False)
    assert available_cores(system(tmp_path, "0::/\n", **{"cpu.max": "400000 100000"})) == 3
    assert available_cores(system(tmp_path, "0::/\n", **{"cpu.max": "220000 100000"})) == 2.2


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "chosen"),
    [
        (None, None, 4, (4, 1)),
        (None, None, 3.9, (3, 1)),
        (None, None, 0.5, (1, 1)),
        (1, None, 4, (1, 4)),
        (2, None, 5, (2, 2)),
        (8, None, 4, (8, 1)),
        (None, 2, 4, (2, 2)),
        (None, 8, 4, (1, 8)),
        (3, 5, 1, (3, 5)),
    ],
)
def test_workers_and_threads_share_the_whole_cores_unless_they_are_given(
    workers: int | None, threads: int | None, cores: float, chosen: tuple[int, int]
) -> None:
    assert shares(workers, threads, cores) == chosen
