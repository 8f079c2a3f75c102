"""Each system is trained once, on one corpus; what was trained on it before is taken as it is."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.systems import crfsuite, spacy_pipeline, udpipe
from loadtest.machine import machine, now
from structural_kd.files import write_whole
from train.corpora import Corpus, conllu_file

PROJECT = Path(__file__).resolve().parents[2]
RECIPE = PROJECT / "recipes" / "peers.yaml"
STAMP = "trained.json"


class TrainingError(RuntimeError):
    """A system could not be trained, or was trained on something else; the message says what to do."""


@dataclass(frozen=True)
class Trainer:
    """How a system comes to be: ``train`` reads a corpus, which ``source`` names, and fills a folder.

    package: whose version matters. usually: how long it takes, in words. goes_on: whether one that was
    stopped goes on where it was, instead of beginning again.
    """

    train: Callable[[Corpus, str, Path], None]
    package: str
    usually: str
    goes_on: bool = False


def _train_ours(corpus: Corpus, source: str, folder: Path) -> None:
    """Teachers and students of `RECIPE`, in a process of their own; one that was stopped goes on."""
    # It runs in the project's folder, where a path that was typed elsewhere means nothing.
    source = str(Path(source).resolve()) if Path(source).is_dir() else source
    command = [
        sys.executable,
        "-m",
        "train",
        str(RECIPE),
        "--out",
        str(folder.resolve()),
        "--set",
        f"corpus={source}",
    ]
    if _is_begun(folder):
        command.append("--resume")
    ended = subprocess.run(command, cwd=PROJECT).returncode
    if ended:
        raise TrainingError(f"{RECIPE}: training ended with status {ended}; see above")


def _train_spacy(corpus: Corpus, source: str, folder: Path) -> None:
    spacy_pipeline.train(corpus, folder)


def _train_udpipe(corpus: Corpus, source: str, folder: Path) -> None:
    udpipe.train(conllu_file(source, "train"), conllu_file(source, "dev"), folder)


def _train_crfsuite(corpus: Corpus, source: str, folder: Path) -> None:
    crfsuite.train(corpus, folder)


TRAINERS: Mapping[str, Trainer] = {
    "ours": Trainer(_train_ours, "torch", "an hour and a half", goes_on=True),
    "spacy": Trainer(_train_spacy, "spacy", "half an hour"),
    "udpipe": Trainer(_train_udpipe, "ufal.udpipe", "an hour"),
    "crfsuite": Trainer(_train_crfsuite, "python-crfsuite", "a quarter of an hour"),
}


def trained(name: str, corpus: Corpus, source: str, run: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes sure that ``run / name`` holds the trained system; returns what its stamp says.

    The stamp, written last, holds the corpus, a digest of its training and dev splits, the seconds that
    training took, whether it had been stopped before, the version of the library, the machine and the date.

    Raises:
        TrainingError: training failed, or what is there was trained on another corpus.
    """
    trainer, folder = TRAINERS[name], run / name
    stamp, digest = folder / STAMP, corpus_digest(corpus)
    if stamp.is_file():
        told: dict[str, Any] = json.loads(stamp.read_text(encoding="utf-8"))
        if told["digest"] != digest:
            raise TrainingError(
                f"{stamp}: trained on another {told['corpus']}; delete {folder} to train it anew"
            )
        return told
    say(f"{name}: training (usually {trainer.usually})")
    resumed = trainer.goes_on and _is_begun(folder)
    began = time.monotonic()
    trainer.train(corpus, source, folder)
    told = {
        "corpus": corpus.name,
        "digest": digest,
        "seconds": round(time.monotonic() - began, 1),
        "resumed": resumed,
        "package": trainer.package,
        "version": version(trainer.package),
        "machine": machine(),
        "date": now(),
    }
    write_whole(stamp, json.dumps(told, indent=1) + "\n")
    return told


def _is_begun(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def corpus_digest(corpus: Corpus) -> str:
    """SHA-256 over words, tags and trees of the training and dev splits, shortened."""
    digest = hashlib.sha256()
    for sentence in (*corpus.train, *corpus.dev):
        row = [sentence.words, sentence.tags, sentence.heads, sentence.deprels]
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]
