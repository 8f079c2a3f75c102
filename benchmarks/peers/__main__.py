"""python -m benchmarks.peers: our students and teachers beside spaCy, UDPipe and CRFsuite, on one corpus.

Trains the systems that are not trained yet (some hours, once), scores every system on the test split, times
all of them in turn in this process on one thread, and writes the report.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.system import TRAINED

EPILOG = """\
examples:
  everything:
    python -m benchmarks.peers
  training alone, for instance two of them side by side in two terminals:
    python -m benchmarks.peers --train ours
    python -m benchmarks.peers --train spacy udpipe crfsuite
  a report without the systems that take long to train:
    python -m benchmarks.peers --systems ours crfsuite

It writes peers.json, peers.md and peers.svg into --out. Trained systems lie in --run, a folder a system;
delete one to have it trained anew. Exit status: 0 measured, 1 something could not be trained or read, 2 a
wrong option, 130 stopped by Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--systems", nargs="+", choices=TRAINED, default=TRAINED, help="to compare (all)")
    parser.add_argument("--train", nargs="+", choices=TRAINED, help="train these, and measure nothing")
    parser.add_argument("--corpus", default="en_ewt", help="name or folder, with entities and trees (en_ewt)")
    parser.add_argument("--run", type=Path, default=Path("runs/peers"), help="trained systems (runs/peers)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder of the report (reports)")
    parser.add_argument("--rounds", type=int, default=5, help="in which all take turns (5)")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1, as make peers does: libraries take all cores otherwise")
    from benchmarks.peers.comparison import run  # slow to import: a wrong option should not wait for it

    return run(
        options.train or options.systems,
        options.corpus,
        options.run,
        options.out,
        rounds=options.rounds,
        only_train=bool(options.train),
    )


if __name__ == "__main__":
    sys.exit(main())
