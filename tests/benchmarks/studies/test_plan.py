from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.studies.plan import StudyError, load_study
from benchmarks.studies.runs import StudyRun, runs_of, student_jobs

RECIPE: dict[str, Any] = {
    "corpus": "en_ewt",
    "labelled": 100,
    "vectors": {"text": "corpus"},
    "encoder": {"name": "some/encoder"},
    "distillation": {"objectives": ["none", "posterior", "structural"]},
    "tasks": {"ner": {"students": {"crf": {"steps": 5}, "softmax": {"steps": 5}}}},
}


def write(folder: Path, **study: Any) -> Path:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"seeds": [1, 2], **study}, sort_keys=False))
    return path


def plan(folder: Path, **entries: Any) -> dict[str, StudyRun]:
    recipe = str(folder / "recipe.yaml")
    path = write(folder, runs={name: {"recipe": recipe, **entry} for name, entry in entries.items()})
    return runs_of(load_study(path), path)


def test_each_combination_of_a_grid_is_a_run_named_by_its_values(tmp_path: Path) -> None:
    grid = {"unlabelled": [10, 20], "distillation.temperature": [1, 2]}
    runs = plan(tmp_path, raw={"grid": grid})
    assert list(runs) == [
        "raw/unlabelled=10/temperature=1",
        "raw/unlabelled=10/temperature=2",
        "raw/unlabelled=20/temperature=1",
        "raw/unlabelled=20/temperature=2",
    ]
    assert runs["raw/unlabelled=20/temperature=1"].recipe.unlabelled == 20
    assert runs["raw/unlabelled=20/temperature=2"].recipe.distillation.temperature == 2


def test_a_run_says_how_python_m_train_trains_it(tmp_path: Path) -> None:
    runs = plan(tmp_path, raw={"set": {"unlabelled": 5}})
    assert runs["raw"].command() == (
        f"python -m train {tmp_path}/recipe.yaml --set 'unlabelled=5' --set 'seeds=[1, 2]'"
    )


def test_every_student_is_a_job_and_the_first_seed_of_all_comes_before_the_second_of_any(
    tmp_path: Path,
) -> None:
    jobs = student_jobs(plan(tmp_path, a={}, b={"set": {"distillation.objectives": ["structural"]}}))
    assert [str(job) for job in jobs[:7]] == [
        "a crf none seed 1",
        "a crf posterior seed 1",
        "a crf structural seed 1",
        "a softmax none seed 1",
        "a softmax structural seed 1",  # posterior is for CRFs only
        "b crf structural seed 1",
        "b softmax structural seed 1",
    ]
    assert [job.seed for job in jobs] == [1] * 7 + [2] * 7


def test_runs_share_teachers_unless_something_differs_that_a_teacher_depends_on(tmp_path: Path) -> None:
    runs = plan(
        tmp_path,
        plain={},
        raw={"set": {"unlabelled": 50}},
        softer={"set": {"distillation.temperature": 3}},
        folds={"set": {"targets.crossfit": 2}},
        other_students={"set": {"tasks.ner.students": {"crf": {"steps": 9}}}},
        fewer={"set": {"labelled": 50}},
        span={"set": {"tasks.ner.teacher.kind": "span", "distillation.objectives": ["none"]}},
        own_text={"set": {"unlabelled": 50, "vectors.text": "taught"}},
    )
    keys = {name: run.shared_key() for name, run in runs.items()}
    same = {name for name, key in keys.items() if key == keys["plain"]}
    assert same == {"plain", "raw", "softer", "folds", "other_students"}
    assert len(set(keys.values())) == 4


def test_a_students_settings_are_its_own_not_those_of_other_students_objectives_or_seeds(
    tmp_path: Path,
) -> None:
    runs = plan(
        tmp_path,
        plain={},
        fewer={"set": {"distillation.objectives": ["none"], "tasks.ner.students": {"crf": {"steps": 5}}}},
        longer={"set": {"tasks.ner.students.crf.steps": 6}},
        softer={"set": {"distillation.temperature": 3}},
    )
    assert runs["plain"].digests["crf"] == runs["fewer"].digests["crf"]
    assert runs["plain"].digests["softmax"] == runs["longer"].digests["softmax"]
    assert len({runs[name].digests["crf"] for name in ("plain", "longer", "softer")}) == 3


def test_the_rows_of_teachers_are_of_all_that_they_depend_on(tmp_path: Path) -> None:
    token = {"distillation.objectives": ["none", "token"], "tasks.ner.token_teacher": {"kind": "softmax"}}
    runs = plan(
        tmp_path,
        plain={},
        softer={"set": {"distillation.temperature": 3}},
        raw={"set": {"unlabelled": 50}},
        folds={"set": {"targets.crossfit": 2}},
        token={"set": token},
        longer_token={"set": {**token, "tasks.ner.token_teacher": {"kind": "softmax", "steps": 9}}},
    )
    assert runs["plain"].teachers_digest == runs["softer"].teachers_digest
    assert runs["token"].shared_key() == runs["plain"].shared_key()
    assert runs["token"].token_key() != runs["longer_token"].token_key()
    names = ("plain", "raw", "folds", "token", "longer_token")
    assert len({runs[name].teachers_digest for name in names}) == 5


def test_a_run_of_other_settings_has_another_folder(tmp_path: Path) -> None:
    before = plan(tmp_path, a={})["a"].folder
    assert before.startswith("a@")
    assert plan(tmp_path, a={"set": {"tasks.ner.students.crf.steps": 9}})["a"].folder != before
    assert plan(tmp_path, a={"set": {"distillation.objectives": ["none"]}})["a"].folder == before


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ({"set": {"labeled": 5}}, "runs.a: .*labeled: unknown key; did you mean 'labelled'"),
        ({"grid": {"unlabelled": []}}, "runs.a.grid.unlabelled: .*at least 1"),
        ({"sets": {}}, "runs.a.sets: Extra inputs"),
        ({"set": {"seeds": [7]}}, "runs.a: seeds are those of the whole study"),
        ({"set": {"distillation.objectives": ["none", "none"]}}, "runs.a: an objective stands twice"),
        (
            {"set": {"tasks.parse.students": {"biaffine": {}}, "distillation.objectives": ["none"]}},
            "runs.a: a study's recipe has one task",
        ),
    ],
)
def test_a_wrong_study_is_refused_with_the_place_and_the_remedy(
    tmp_path: Path, entry: dict[str, Any], error: str
) -> None:
    with pytest.raises(StudyError, match=error):
        plan(tmp_path, a=entry)


def test_seeds_that_stand_twice_and_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there are two runs a/unlabelled=5; rename"):
        plan(tmp_path, **{"a": {"grid": {"unlabelled": [5]}}, "a/unlabelled=5": {}})
    for wrong, error in (({"seeds": [1, 2, 2]}, "one stands twice"), ({"report": "x/y.md"}, "name it alone")):
        with pytest.raises(StudyError, match=error):
            load_study(write(tmp_path, runs={}, **wrong))


def test_a_study_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(StudyError, match=r"no such study; there are: studies/paper\.yaml"):
        load_study(Path("studies/papper.yaml"))
