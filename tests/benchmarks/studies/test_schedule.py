from pathlib import Path

import pytest
import yaml

from benchmarks.studies.plan import load_study
from benchmarks.studies.runs import StudentJob, StudyRun, runs_of, student_jobs
from benchmarks.studies.schedule import Queue, other_teachers, reason


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, StudyRun]:
    """Two runs over one text, and one over another."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "corpus": "en_ewt",
                "encoder": {"name": "some/encoder"},
                "tasks": {"ner": {"students": {"crf": {}}}},
            }
        )
    )
    entries = {
        "plain": {"recipe": str(recipe)},
        "soft": {"recipe": str(recipe), "set": {"distillation.temperature": 2}},
        "hebrew": {"recipe": str(recipe), "set": {"corpus": "he_htb"}},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"seeds": [1, 2], "runs": entries}, sort_keys=False))
    return runs_of(load_study(path), path)


def test_teachers_of_one_text_are_trained_one_by_one_and_students_after_their_teachers(
    runs: dict[str, StudyRun],
) -> None:
    queue = Queue(runs, student_jobs(runs))
    assert len(queue) == 3 + 12
    assert (queue.next(), queue.next(), queue.next()) == ("plain", "hebrew", None)
    queue.finish("plain")
    assert queue.next() == "soft"
    assert queue.next() == StudentJob("plain", "crf", "none", 1)
    assert queue.next() == StudentJob("plain", "crf", "structural", 1)
    assert queue.next() == StudentJob("plain", "crf", "none", 2)
    queue.finish("hebrew")
    assert queue.next() == StudentJob("hebrew", "crf", "none", 1)


def test_the_students_of_teachers_that_failed_are_taken_out(runs: dict[str, StudyRun]) -> None:
    queue = Queue(runs, student_jobs(runs))
    assert queue.next() == "plain"
    assert {job.run for job in queue.fail("plain")} == {"plain"}
    assert len(queue) == 2 + 8
    assert queue.next() == "soft"


def test_other_teachers_than_those_of_the_stored_rows_give_a_warning() -> None:
    stored = {"case": "1a", "split": "test", "metric": "f1", "value": 74.27}
    speed = {"case": "1a", "split": "test", "metric": "sent_per_s", "value": 100.0}
    assert other_teachers([stored, speed], [stored, {**speed, "value": 99.0}]) == ""
    warning = other_teachers([{**stored, "value": 74.31}], [stored])
    assert warning == ", but not those of the stored rows: test F1 74.31, stored 74.27"


def test_the_traceback_of_a_fault_of_the_program_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert reason(RuntimeError("labelled: 99 sentences"), log) == "labelled: 99 sentences"
    assert not log.exists()
    with pytest.raises(KeyError) as fault:
        {"test": 1}["dev"]
    assert reason(fault.value, log) == f"KeyError: 'dev'; see {log}"
    assert "test_schedule.py" in log.read_text()
