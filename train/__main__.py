"""Train a recipe: teacher, targets, students, scores.

python -m train recipes/quickstart.yaml
python -m train recipes/en_ewt.yaml --set seeds=[1,2,3] --set distillation.temperature=2
python -m train recipes/en_ewt.yaml --resume        after a kill, or to add seeds to a finished run
python -m train recipes/en_ewt.yaml --check         validate only

recipes/ holds examples: cases/ has one for each pair of teacher and student, paper/ the paper's own sizes.
docs/structural-kd.md says what teachers, students, objectives and divergences there are.
"""

import argparse
import shlex
import sys
import warnings
from pathlib import Path

from structural_kd.files import write_whole
from train.recipe import RecipeError, load_recipe


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="the experiment's YAML file, see recipes/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe; repeatable",
    )
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/NAME of the recipe)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--check", action="store_true", help="validate the recipe, run nothing")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs") / options.recipe.stem
    try:
        recipe = load_recipe(options.recipe, options.set)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check:
        print(f"{options.recipe}: valid")
        return 0
    if out.exists() and not out.is_dir():
        print(f"error: {out} is a file; --out takes a folder", file=sys.stderr)
        return 2
    if out.exists() and any(out.iterdir()) and not options.resume:
        print(
            f"error: {out} holds a run already; pass --resume to go on with it, or --out for another folder",
            file=sys.stderr,
        )
        return 2

    warnings.formatwarning = lambda message, *_args, **_kwargs: f"warning: {message}\n"
    # The rest is slow to import, and neither a wrong recipe nor --help should wait for it.
    from train.examples import write_examples
    from train.report import LEGEND, results_table
    from train.results import encoder_weights
    from train.run import USER_ERRORS, run

    try:
        rows = run(recipe, out)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        changes = [word for change in options.set for word in ("--set", change)]
        again = ["python", "-m", "train", str(options.recipe), *changes, "--out", str(out), "--resume"]
        print(f"stopped; go on with: {shlex.join(again)}", file=sys.stderr)
        return 130
    tested_on = (
        recipe.target or ", ".join(recipe.corpus) or ", ".join(source.path for source in recipe.text or ())
    )
    parts = [
        f"Test split of {split.partition('/')[2] or tested_on}:\n\n{results_table(rows, split)}"
        for split in sorted({row["split"] for row in rows if row["split"].startswith("test")})
    ]
    closing = "\n\n".join([*parts, LEGEND, *encoder_weights(out)]) + "\n"
    write_whole(out / "table.md", closing)
    examples = write_examples(out)
    if examples is not None:
        print(f"\n{examples}\nexamples: {out / 'examples.md'}")
    print(f"\n{closing}\nrows: {out / 'results.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
