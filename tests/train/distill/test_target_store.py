from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.distill import target_store as targets
from train.distill.target_store import TargetHeader, TargetStore, TargetStoreError

HEADER = TargetHeader(
    task="ner",
    family="LinearChain",
    teacher="a" * 64,
    corpus="b" * 64,
    labels=("O", "S-X"),
    temperature=2.0,
    sentences=5,
)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SHARD_SENTENCES", 2)


def rows(numbers: range) -> list[dict[str, np.ndarray]]:
    return [
        {
            "tokens": np.full((number + 1, 2), number, np.float32),
            "entropy": np.array([number / 2], np.float32),
        }
        for number in numbers
    ]


def test_every_sentence_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = TargetStore(tmp_path, HEADER)
    for shard, numbers in store.missing():
        store.write(shard, rows(numbers))
    reopened = TargetStore(tmp_path, HEADER)
    assert not list(reopened.missing())
    for i, row in enumerate(rows(range(5))):
        assert {name: array.tolist() for name, array in reopened[i].items()} == {
            name: array.tolist() for name, array in row.items()
        }


def test_a_store_whose_writing_was_cut_off_goes_on_with_the_missing_shards(tmp_path: Path) -> None:
    store = TargetStore(tmp_path, HEADER)
    store.write(0, rows(range(2)))
    (tmp_path / "shard-00001.part").mkdir()  # what a kill in the middle of a shard leaves behind
    again = TargetStore(tmp_path, HEADER)
    assert [list(numbers) for _, numbers in again.missing()] == [[2, 3], [4]]
    again.write(1, rows(range(2, 4)))
    assert again[3]["entropy"].tolist() == [1.5]
    with pytest.raises(TargetStoreError, match="not finished"):
        again[4]


@pytest.mark.parametrize(
    ("field", "value"),
    [("teacher", "c" * 64), ("corpus", "c" * 64), ("labels", ("O",)), ("temperature", 1.0), ("sentences", 4)],
)
def test_targets_of_another_teacher_corpus_or_label_set_are_refused_by_field(
    tmp_path: Path, field: str, value: object
) -> None:
    TargetStore(tmp_path, HEADER)
    with pytest.raises(TargetStoreError, match=f"store's {field}.*delete"):
        TargetStore(tmp_path, replace(HEADER, **{field: value}))  # type: ignore[arg-type]


def test_a_damaged_store_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    store = TargetStore(tmp_path, HEADER)
    store.write(0, rows(range(2)))
    file = tmp_path / "shard-00000" / "tokens.npy"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(TargetStoreError, match="shard-00000 is damaged"):
        TargetStore(tmp_path, HEADER)[0]
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(TargetStoreError, match=r"header\.json is damaged"):
        TargetStore(tmp_path, HEADER)


def test_a_sentence_outside_the_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match=r"0\.\.4"):
        TargetStore(tmp_path, HEADER)[5]
