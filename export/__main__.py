"""``python -m export RUN``: trained models to bundles."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from export.model import WrittenBundle, export_model, tasks_of
from export.parity import Parity, ParityError
from export.quantisation import BOUND, MAIN_METRIC, QuantisationError
from structural_kd.manifest import Manifest

EXAMPLES = """\
examples:
  the served students to bundles/ner and bundles/parse:
    python -m export runs/quickstart
  the teachers beside them:
    python -m export runs/quickstart --teachers --out bundles/teachers
  one task only:
    python -m export runs/quickstart --task ner
  the students in 8 bits, to bundles/ner-int8 and bundles/parse-int8, if that costs 0.3 points at most:
    python -m export runs/quickstart --precision int8 --most-loss 0.3

The student is the one that RUN/TASK/served.json names. A bundle has to answer as its torch model on 1,000
random inputs and on the test split (a model with an encoder on 200 sentences of it), else it is not written
and the exit status is 1. A bundle in int8 is compared with the one in fp32 on the corpus of the run, and is
not written either if it loses too much. A bundle that is already there is replaced as a whole. Serve them
with: python -m serve --bundles bundles
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export the trained models of a run as bundles: ONNX graphs, word tables and a manifest.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that python -m train wrote")
    parser.add_argument(
        "--out", type=Path, default=Path("bundles"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--teachers", action="store_true", help="export the teachers, not the served students"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), default="fp32", help="of the context; default: %(default)s"
    )
    parser.add_argument(
        "--most-loss",
        type=float,
        default=BOUND,
        metavar="POINTS",
        help="points of F1 or LAS that int8 may cost on dev and on test; default: %(default)s",
    )
    parser.add_argument("--task", choices=("ner", "parse"), help="default: every task of the run")
    options = parser.parse_args(arguments)
    exported = []
    try:
        for task in tasks_of(options.run, options.task):
            role = "teacher" if options.teachers else "student"
            print(f"{task} {role}: exporting and comparing with torch", file=sys.stderr)
            name = task if options.precision == "fp32" else f"{task}-{options.precision}"
            target, precision = options.out / name, options.precision
            written = export_model(
                options.run, task, role, target, precision=precision, most_loss=options.most_loss
            )
            exported.append(written)
    except (ParityError, QuantisationError) as error:
        print(f"not exported: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(exported))
    return 0


def table(exported: Sequence[WrittenBundle]) -> str:
    """The written bundles, one line each."""
    headers = ["bundle", "task", "model", "precision", "MB", "parameters"]
    headers += ["fp32 and torch: random inputs", "test sentences", "score difference"]
    rows = [
        [
            one.path,
            one.manifest.task,
            f"{one.manifest.role}, {one.manifest.kind}",
            _precision(one.manifest),
            f"{one.size / 1e6:.1f}",
            f"{one.manifest.parameters:,}",
            _agreement(one.random_inputs),
            _agreement(one.test_sentences),
            f"{max(one.random_inputs.difference, one.test_sentences.difference):.1e}",
        ]
        for one in exported
    ]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


def _precision(manifest: Manifest) -> str:
    if manifest.quantisation is None:
        return manifest.precision
    metric = MAIN_METRIC[manifest.task]
    costs = (f"{split} {-metrics[metric]:+.2f}" for split, metrics in manifest.quantisation.loss.items())
    return f"{manifest.precision} ({metric.upper()}: {', '.join(costs)})"


def _agreement(parity: Parity) -> str:
    equal = f"{parity.sentences - parity.ties} of {parity.sentences} equal"
    return f"{equal}, {parity.ties} ties" if parity.ties else equal


if __name__ == "__main__":
    sys.exit(main())
