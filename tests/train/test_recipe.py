from pathlib import Path

import pytest

from train.__main__ import main
from train.recipe import RecipeError, load_recipe

RECIPE = """
corpus: he_htb
labelled: 10
encoder: {name: some/encoder}
tasks:
  ner:
    students:
      crf: {steps: 5}
"""


def write(tmp_path: Path, text: str = RECIPE) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert recipe.tasks["ner"].students["crf"].steps == 5
    assert recipe.distillation.objectives == ("none", "structural")
    assert recipe.seeds == (1,)


def test_set_overrides_keys_at_any_depth(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path),
        ["seeds=[1, 2, 3]", "distillation.temperature=2", "tasks.ner.students.crf.hidden_size=8"],
    )
    assert recipe.seeds == (1, 2, 3)
    assert recipe.distillation.temperature == 2
    assert recipe.tasks["ner"].students["crf"].hidden_size == 8


def test_set_changes_one_of_several_sections_that_share_a_yaml_anchor(tmp_path: Path) -> None:
    text = RECIPE.replace("crf: {steps: 5}", "crf: &sizes {steps: 5}\n      softmax: *sizes")
    students = load_recipe(write(tmp_path, text), ["tasks.ner.students.crf.steps=6"]).tasks["ner"].students
    assert (students["crf"].steps, students["softmax"].steps) == (6, 5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labelled: 10", "labeled: 10", "labeled: unknown key; did you mean 'labelled'"),
        ("{steps: 5}", "{step: 5}", r"tasks\.ner\.students\.crf: step: unknown key; did you mean 'steps'"),
        ("encoder: {name: some/encoder}", "encoder: {nam: x, name: y}", "did you mean 'name'"),
        ("labelled: 10", "labelled: -1", r"labelled: Input should be greater than 0 \(given: -1\)"),
        ("labelled: 10", "labelled: many", "labelled: Input should be a valid integer"),
        (
            "crf: {steps: 5}",
            "biaffine: {steps: 5}",
            "'biaffine' is no student of this task; known: crf, softmax",
        ),
        ("corpus: he_htb", "", "corpus: a teacher that is trained here needs a labelled corpus"),
        ("labelled: 10", "distillation: {objectives: [structual]}", "did you mean 'structural'"),
        ("labelled: 10", "distillation: {temperature: 0}", "temperature: Input should be greater than 0"),
        ("labelled: 10", "labelled: [", "not valid YAML"),
        ("labelled: 10", "seeds: []", "at least one seed"),
        ("labelled: 10", "seeds: [-1]", r"seeds\.0: Input should be greater than or equal to 0"),
        ("labelled: 10", "distillation: {temperature: .inf}", "temperature: Input should be a finite number"),
        ("name: some/encoder", "name: some/encoder, layers: []", "layers: .*at least 1 item"),
        ("labelled: 10", "distillation: {objectives: [token]}", "none of the objectives is for crf"),
        (
            "labelled: 10",
            "distillation: {objectives: [none, token]}",
            "token is for none of the students crf",
        ),
        ("labelled: 10", "target: sr_set", "leave out none"),
        ("labelled: 10", "target: x/he_htb\ndistillation: {objectives: [top1]}", "have the same name"),
        (
            "labelled: 10",
            "target: y\nunlabelled: 0\ndistillation: {objectives: [top1]}",
            "unlabelled: students",
        ),
        ("labelled: 10", "target: y\ntargets: {crossfit: 3}\ndistillation: {objectives: [top1]}", "crossfit"),
        ("students:", "teacher: {kind: biaffine}\n    students:", "'biaffine' is no teacher of this task"),
        ("students:", "teacher: {scheme: iob2}\n    students:", "types, scheme: go with kind: transformers"),
        ("students:", "teacher: {kind: transformers}\n    students:", "name: the folder or hub id"),
        ("students:", "monolingual_teachers: true\n    students:", "two or more corpora"),
        ("students:", "token_teacher: {kind: softmax}\n    students:", "goes with the objective token"),
        (
            "labelled: 10",
            "distillation: {objectives: [structural], temper: marginals, temperature: 2}",
            "allow_inconsistent: true",
        ),
        ("labelled: 10", "distillation: {divergence: renyi, alpha: 1}", "order 1 is the divergence kl"),
        ("labelled: 10", "distillation: {objectives: [none+structural]}", "can not be combined"),
    ],
)
def test_the_error_of_a_wrong_recipe_names_the_key_and_the_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(write(tmp_path, RECIPE.replace(old, new)))
    assert "recipe.yaml" in str(error.value)


def test_a_teacher_without_an_encoder_says_so(tmp_path: Path) -> None:
    bare = RECIPE.replace("encoder: {name: some/encoder}\n", "")
    with pytest.raises(RecipeError, match="reads_encoder: false"):
        load_recipe(write(tmp_path, bare))
    assert load_recipe(write(tmp_path, bare), ["tasks.ner.teacher.reads_encoder=false"]).encoder is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "write key=value"),
        ("corpus.name=x", "corpus is a value"),
        ("sedes=[1]", "did you mean 'seeds'"),
    ],
)
def test_a_wrong_override_is_an_error(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path), [override])


def test_a_missing_recipe_lists_the_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("**/*.yaml")), ids=str)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    assert main([str(path), "--check"]) == 0


def test_a_folder_in_place_of_a_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can not be read"):
        load_recipe(tmp_path)


def test_a_file_in_place_of_the_run_folder_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path)
    assert main([str(recipe), "--out", str(recipe)]) == 2
    assert "is a file" in capsys.readouterr().err


def test_the_command_refuses_a_folder_that_holds_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write(tmp_path), tmp_path / "run"
    out.mkdir()
    (out / "something").write_text("kept")
    assert main([str(recipe), "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (out / "something").read_text() == "kept"


def test_divergences_and_k_best_are_refused_for_teachers_that_do_not_have_them(tmp_path: Path) -> None:
    spans = write(tmp_path, RECIPE.replace("students:", "teacher: {kind: span}\n    students:"))
    with pytest.raises(RecipeError, match=r"span -> crf: jeffreys is exact only where"):
        load_recipe(spans, ["distillation.divergence=jeffreys"])
    mixture = write(tmp_path, RECIPE.replace("students:", "teacher: [{}, {seed: 2}]\n    students:"))
    with pytest.raises(RecipeError, match="entropy of a mixture"):
        load_recipe(mixture, ["distillation.divergence=kl"])
    trees = """
corpus: he_htb
encoder: {name: some/encoder}
distillation: {objectives: [topk]}
tasks: {parse: {teacher: {kind: matrix_tree}, students: {biaffine: {}}}}
"""
    with pytest.raises(RecipeError, match="k best trees are not offered"):
        load_recipe(write(tmp_path, trees))
    second = ["distillation.objectives=[structural]", "tasks.parse.teacher.kind=second_order"]
    load_recipe(write(tmp_path, trees), [*second, "distillation.divergence=reverse_kl"])
    with pytest.raises(RecipeError, match="share their parts"):
        load_recipe(
            write(tmp_path, trees),
            [*second, "distillation.divergence=reverse_kl", "distillation.temperature=2"],
        )
