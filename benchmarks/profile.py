"""Where the time of a bundle's graph goes, operator by operator.

    python -m benchmarks.profile bundles/ner runs/en_ewt/test.txt

Reads one sentence a line, words separated by spaces. Times are ONNX Runtime's own, in microseconds a token;
measuring each of thousands of short operators takes longer than running them, so that small ones look larger
than they are: compare with ``python -m benchmarks.engine`` before drawing a conclusion.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import structural_kd
from structural_kd.batches import length_batches
from structural_kd.manifest import MODEL
from structural_kd.predictor import TOKENS_A_BATCH


class Operator(NamedTuple):
    """One kind of operator: how often it ran, and for how long in all. Loops count without their bodies."""

    name: str
    calls: int
    seconds: float


def profile(folder: Path, sentences: Sequence[Sequence[str]]) -> list[Operator]:
    """Runs a bundle's graph over sentences on one thread; the operators, the longest first."""
    import onnxruntime

    predictor = structural_kd.load(folder)
    lengths = [len(words) for words in sentences]
    batches = [
        predictor.batch([sentences[i] for i in places]) for places in length_batches(lengths, TOKENS_A_BATCH)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(temporary) / "profile")
        session = onnxruntime.InferenceSession(
            str(folder / MODEL), options, providers=["CPUExecutionProvider"]
        )
        for batch in batches:
            session.run(None, batch.feeds())
        events = json.loads(Path(session.end_profiling()).read_text())
    calls: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["args"]["op_name"]
            calls[name] += 1
            microseconds[name] += event["dur"]
    whole = sum(event["dur"] for event in events if event["name"] == "model_run")
    inner = sum(value for name, value in microseconds.items() if name != "Loop")
    microseconds["Loop"] = max(0, whole - inner)
    return [Operator(name, calls[name], value / 1e6) for name, value in microseconds.most_common()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description="Where the time of a bundle's graph goes."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("texts", type=Path, metavar="FILE", help="a sentence a line, words between spaces")
    options = parser.parse_args(arguments)
    try:
        sentences = [line.split() for line in options.texts.read_text(encoding="utf-8").splitlines()]
        tokens = sum(map(len, sentences))
        if not tokens:
            raise ValueError(f"{options.texts}: no words in it")
        operators = profile(options.bundle, sentences)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    total = sum(operator.seconds for operator in operators)
    print(f"{'operator':<24}{'calls':>8}{'µs a token':>12}{'share':>8}")
    for operator in operators:
        share = operator.seconds / total
        print(f"{operator.name:<24}{operator.calls:>8}{1e6 * operator.seconds / tokens:>12.3f}{share:>8.1%}")
    print(f"{'all':<24}{'':>8}{1e6 * total / tokens:>12.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
