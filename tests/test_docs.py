"""What the pages of docs/ say: the tests and recipes it names, its example, corrections to the paper."""

import ast
import contextlib
import io
import itertools
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.studies.check import check_cells
from benchmarks.studies.plan import load_study
from benchmarks.studies.runs import runs_of
from train.distill.projection import project
from train.recipe import load_recipe
from train.structs import HeadSelection, LabelledHeads, SpanSet

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "structural-kd.md").read_text(encoding="utf-8")
PAGES = PAGE + (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
ROOMS = ("structural_kd", "train", "export", "serve", "loadtest", "benchmarks")
NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", PAGES)))
NAMED_FILES = sorted(set(re.findall(rf"`((?:{'|'.join(ROOMS)}|tests|recipes|studies)/[\w/.]+)`", PAGES)))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@cache
def names_in(file: str) -> set[str]:
    """``test_x`` and ``TestY::test_z`` of a file, without importing it."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@cache
def example() -> tuple[dict[str, Any], str]:
    """The names that the page's Python example leaves behind, and what it prints."""
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "docs/structural-kd.md", "exec"), names)
    return names, printed.getvalue()


def tracked() -> set[str]:
    """The files that git knows, or would know: all that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    return set(listed.stdout.split("\0"))


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_and_picture_of_the_readme_and_the_pages_resolves() -> None:
    files = tracked()
    missing = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            name = target.relative_to(ROOT).as_posix()
            if name not in files and not any(file.startswith(f"{name}/") for file in files):
                missing.append(f"{page.name}: {link}")
            elif anchor and anchor not in anchors(target):
                missing.append(f"{page.name}: {link}: no such heading")
    assert missing == []


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) <= 8000


@pytest.mark.parametrize(("file", "test"), NAMED_TESTS, ids=[test for _, test in NAMED_TESTS])
def test_every_test_that_the_pages_name_exists(file: str, test: str) -> None:
    assert test in names_in(file)


def test_every_file_that_the_pages_name_exists() -> None:
    assert [name for name in NAMED_FILES if not (ROOT / name).exists()] == []


def test_the_page_names_every_recipe_of_a_case_and_of_the_paper() -> None:
    recipes = {str(path.relative_to(ROOT)) for path in ROOT.glob("recipes/*/*.yaml")}
    assert recipes - set(NAMED_FILES) == set()


def test_every_row_of_a_table_has_the_columns_of_its_head() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_the_recipes_and_studies_on_the_page_are_valid(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "example.yaml"
    file.write_text(blocks("yaml")[number], encoding="utf-8")
    if "\nruns:" in file.read_text(encoding="utf-8"):
        study = load_study(file)
        check_cells(study, runs_of(study, file), file)
    else:
        load_recipe(file)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "paper").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_settings_in_the_comments_of_the_paper_s_recipes_are_valid(path: Path) -> None:
    comments = " ".join(re.findall(r"^#(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    settings = re.findall(r"--set (?:'([^']+)'|([\w.]+=[\w./\[\]-]+))", comments)
    assert settings
    for quoted, plain in settings:
        load_recipe(path, [(quoted or plain).rstrip(".")])


def test_the_example_prints_the_output_on_the_page() -> None:
    assert [example()[1]] == blocks("text")


def test_the_example_is_the_sum_over_all_structures() -> None:
    names, _ = example()
    teacher, student = names["teacher"], names["student"]
    sequences = torch.tensor(list(itertools.product(range(5), repeat=5)))  # [m, n]
    log_t = torch.stack([teacher.log_prob(y[None])[0] for y in sequences]).double()
    log_s = torch.stack([student.log_prob(y[None])[0] for y in sequences]).double()
    assert float(log_t.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(-(log_t.exp() * log_s).sum()) == pytest.approx(names["loss"].item(), rel=1e-5)
    assert float((log_t.exp() * (log_t - log_s)).sum()) == pytest.approx(names["gap"].item(), rel=1e-4)


def test_arc_marginals_are_heads_times_relations_given_the_head() -> None:
    """Eq. 5 prints P(h) · P(l); a biaffine parser's relation scores belong to an arc."""
    generator = torch.Generator().manual_seed(0)
    n, relations = 3, 2
    arcs = torch.randn(1, n, n + 1, generator=generator)
    kinds = 2 * torch.randn(1, n, n + 1, relations, generator=generator)
    teacher = HeadSelection(arcs=arcs, relations=kinds, lengths=torch.tensor([n]))
    enumerated = torch.zeros(n, n + 1, relations)
    token = torch.arange(n)
    choices = [[(h, r) for h in range(n + 1) if h != i + 1 for r in range(relations)] for i in range(n)]
    for structure in itertools.product(*choices):
        heads, labels = torch.tensor(structure).T
        enumerated[token, heads, labels] += (
            teacher.log_prob(LabelledHeads(heads[None], labels[None])).exp().item()
        )
    torch.testing.assert_close(project(teacher, onto=HeadSelection)[0], enumerated)
    own = torch.eye(n, n + 1).roll(1, 1).bool()
    head = arcs[0].masked_fill(own, -torch.inf).softmax(-1)[..., None]  # [n, n+1, 1] P(h)
    given = kinds[0].softmax(-1)  # [n, n+1, R] P(l | h)
    torch.testing.assert_close(head * given, enumerated)
    printed = head * (head * given).sum(1, keepdim=True)  # P(h) · P(l)
    assert (printed - enumerated).abs().max() > 0.05


def test_the_forward_table_of_appendix_a_is_the_total_of_the_tokens_before() -> None:
    n = 4
    scores = torch.randn(1, n, n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def prefix(tokens: int) -> SpanSet:
        return SpanSet(scores[:, :tokens, :tokens], torch.tensor([tokens]))

    def total(tokens: int) -> float:
        return prefix(tokens).log_partition().exp().item()

    weights = scores[0].exp().sum(-1)  # [n, n] of spans of any type
    forward = [1.0]  # →DP(1, F)
    for i in range(1, n):
        ending = sum(float(weights[k, i - 1]) * forward[k] for k in range(i))  # Σ_l →DP(i, l)
        forward.append(forward[-1] + ending)
    assert forward[1:] == pytest.approx([total(i) for i in range(1, n)])
    assert all(value < 0.9 * total(i) for i, value in enumerate(forward, 1))  # and not of the token itself
    for i, value in enumerate(forward, 1):  # what the definition says, a token outside scoring 0
        _, outside = prefix(i).marginals_and_outside()
        assert value == pytest.approx(outside[0, -1].item() * total(i))
