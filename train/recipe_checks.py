"""Whether the sections of a recipe fit one another."""

from pathlib import Path
from typing import TYPE_CHECKING

from train.distill.objectives import DIVERGENCES, is_for
from train.model_kinds import FAMILY, SHARED_PARTS, STUDENTS, TEACHERS, WITHOUT_TOPK

if TYPE_CHECKING:
    from train.recipe import Recipe


def check_recipe(recipe: "Recipe") -> None:
    """Refuse a recipe whose settings contradict one another, or do nothing.

    Raises:
        ValueError: the key, and what to write instead.
    """
    _check_students(recipe)
    _check_teachers(recipe)
    _check_distillation(recipe)
    _check_text(recipe)
    _check_vectors(recipe)


def _check_students(recipe: "Recipe") -> None:
    if not recipe.tasks:
        raise ValueError("name at least one task: ner, parse")
    if not recipe.seeds:
        raise ValueError("name at least one seed")
    for task, settings in recipe.tasks.items():
        known = ", ".join(STUDENTS[task])
        if not settings.students:
            raise ValueError(f"tasks.{task}.students: name at least one of {known}")
        for kind in (*settings.students, settings.served):
            if kind not in STUDENTS[task]:
                raise ValueError(f"tasks.{task}: {kind!r} is no student of this task; known: {known}")
        if settings.served not in settings.students:
            raise ValueError(f"tasks.{task}.serve: {settings.serve!r} is not among its students")
        if not any(is_for(name, FAMILY[settings.served]) for name in recipe.distillation.objectives):
            raise ValueError(
                f"tasks.{task}: none of the objectives is for {settings.served}, the student that is served "
                "(posterior is for crf, token for softmax)"
            )
    kinds = [kind for settings in recipe.tasks.values() for kind in settings.students]
    for name in recipe.distillation.objectives:
        if not any(is_for(name, FAMILY[kind]) for kind in kinds):
            raise ValueError(
                f"distillation.objectives: {name} is for none of the students {', '.join(kinds)} "
                "(posterior is for crf, token for softmax)"
            )


def _check_teachers(recipe: "Recipe") -> None:
    for task, settings in recipe.tasks.items():
        for teacher in settings.all_teachers:
            if teacher.kind is not None and teacher.kind not in TEACHERS[task]:
                known = ", ".join(TEACHERS[task])
                raise ValueError(
                    f"tasks.{task}.teacher: {teacher.kind!r} is no teacher of this task; known: {known}"
                )
            if teacher.is_trained and teacher.reads_encoder and recipe.encoder is None:
                raise ValueError(
                    "encoder: name the teacher's encoder, for example encoder: {name: ...}; or write "
                    "reads_encoder: false for a teacher that reads what the students read"
                )
            if teacher.is_trained and not recipe.corpus:
                raise ValueError("corpus: a teacher that is trained here needs a labelled corpus")
        if recipe.distillation.asks_token_teacher and "softmax" in settings.students:
            wanted = settings.token_teacher or settings.teacher[0]
            if wanted.kind != "softmax" or (not settings.token_teacher and len(settings.teacher) > 1):
                raise ValueError(
                    f"tasks.{task}.token_teacher: the objective token needs a teacher of kind softmax"
                )
        is_downloaded = not all(teacher.is_trained for teacher in settings.teacher)
        if len(settings.teacher) > 1 and (settings.monolingual_teachers or recipe.targets.crossfit):
            raise ValueError(
                f"tasks.{task}.teacher: a list of teachers goes neither with monolingual_teachers "
                "nor with crossfit"
            )
        if settings.token_teacher and not recipe.distillation.asks_token_teacher:
            raise ValueError(f"tasks.{task}.token_teacher: goes with the objective token")
        if settings.monolingual_teachers and (
            len(recipe.corpus) < 2 or recipe.target or recipe.text or is_downloaded
        ):
            raise ValueError(
                f"tasks.{task}.monolingual_teachers: goes with two or more corpora, and "
                "without target, text and the kind transformers"
            )
        if recipe.targets.crossfit and (recipe.target or settings.monolingual_teachers or is_downloaded):
            raise ValueError(
                "targets.crossfit: is for a teacher that is trained here on sentences its students learn "
                "from; leave out target, monolingual_teachers and transformers, or crossfit"
            )


def _check_vectors(recipe: "Recipe") -> None:
    if recipe.vectors_of_encoder and recipe.encoder is None:
        raise ValueError("vectors.from: name the encoder (encoder: {name: ...}), or write from: text")


def _check_distillation(recipe: "Recipe") -> None:
    wanted = recipe.distillation
    for task, settings in recipe.tasks.items():
        teachers = [teacher.kind or TEACHERS[task][0] for teacher in settings.teacher]
        for student in settings.students:
            objectives = [name for name in wanted.objectives if is_for(name, FAMILY[student])]
            parts = {part for name in objectives for part in name.split("+")}
            pair = f"tasks.{task}: {'+'.join(teachers)} -> {student}"
            tables = student == "crf" and parts & {"structural", "posterior"}
            if wanted.temper == "marginals" and tables and not wanted.allow_inconsistent:
                raise ValueError(
                    f"{pair}: temper: marginals softens the tables of a CRF's label pairs one by one, "
                    "and they then contradict one another; use temper: potentials, or "
                    "allow_inconsistent: true to redo the paper's table 5"
                )
            shared = len(teachers) == 1 and (teachers[0], student) in SHARED_PARTS
            if teachers == ["second_order"] and wanted.temperature != 1:
                shared = False  # its mean field is found anew at each temperature
            if wanted.divergence == "kl" and tables and wanted.temper == "marginals":
                raise ValueError(
                    f"{pair}: softened tables that contradict one another have no entropy; use "
                    "divergence: cross_entropy"
                )
            if (
                "potentials" in DIVERGENCES[wanted.divergence].contents
                and "structural" in parts
                and not shared
            ):
                raise ValueError(
                    f"{pair}: {wanted.divergence} is exact only where teacher and student share their "
                    "parts; use divergence: cross_entropy or kl, which need only the teacher's marginals"
                )
            if wanted.divergence == "kl" and len(teachers) > 1:
                raise ValueError(
                    f"{pair}: the entropy of a mixture has no closed form; use divergence: "
                    "cross_entropy, whose gradient is that of kl"
                )
            if parts & {"topk", "topwk"} and set(teachers) & set(WITHOUT_TOPK):
                raise ValueError(
                    f"{pair}: the k best trees are not offered; leave out topk and topwk, or use top1"
                )


def _check_text(recipe: "Recipe") -> None:
    if not recipe.corpus and recipe.text is None:
        raise ValueError("corpus: name a corpus; or a file of raw text under text, for a teacher as it is")
    unlabelled_only = recipe.target is not None or not recipe.corpus
    if unlabelled_only and recipe.unlabelled == 0:
        raise ValueError("unlabelled: students that only see raw text need some of it")
    if unlabelled_only and recipe.distillation.unlabelled_weight == 0:
        raise ValueError("distillation.unlabelled_weight: students that only see raw text learn nothing at 0")
    if not recipe.corpus and (recipe.labelled or recipe.sentences):
        raise ValueError("labelled, sentences: there is no corpus to choose from")
    named = [Path(name).name for name in (*recipe.corpus, *([recipe.target] if recipe.target else []))]
    if len(set(named)) < len(named):
        raise ValueError(f"corpus, target: two of {', '.join(named)} have the same name")
    if unlabelled_only and "none" in recipe.distillation.objectives:
        raise ValueError(
            "distillation.objectives: students that only see raw text have nothing to learn from alone; "
            "leave out none"
        )
    if recipe.target is not None and not recipe.corpus:
        raise ValueError("target: zero-shot needs the corpora the teacher learns from under corpus")
