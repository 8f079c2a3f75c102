"""Each system is trained once on a corpus."""

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


class PeerTrainingError(RuntimeError):
    """A system could not be trained, or was trained on another corpus; the message has the remedy."""


@dataclass(frozen=True)
class Trainer:
    """Trains a system: ``train`` reads a corpus and the name or folder that it came from, and fills a folder.

    package: whose version matters. usually: how long it takes, in words. resumes: whether training that was
    stopped goes on, instead of beginning again.
    """

    train: Callable[[Corpus, str, Path], object]
    package: str
    usually: str
    resumes: bool = False


def _train_ours(corpus: Corpus, source: str, folder: Path) -> None:
    """Teachers and students of `RECIPE`, in a process of their own; one that was stopped goes on."""
    # It runs in the project's folder, where a path that was typed elsewhere means nothing.
    source = str(Path(source).resolve()) if Path(source).is_dir() else source
    command = [sys.executable, "-m", "train", str(RECIPE), "--out", str(folder.resolve())]
    command += ["--set", f"corpus={source}"]
    if _is_begun(folder):
        command.append("--resume")
    ended = subprocess.run(command, cwd=PROJECT).returncode
    if ended:
        raise PeerTrainingError(f"{RECIPE}: training ended with status {ended}; see above")


def _train_udpipe(corpus: Corpus, source: str, folder: Path) -> None:
    udpipe.train(conllu_file(source, "train"), conllu_file(source, "dev"), folder)


TRAINERS: Mapping[str, Trainer] = {
    "ours": Trainer(_train_ours, "torch", "an hour and a half", resumes=True),
    "spacy": Trainer(lambda corpus, _, folder: spacy_pipeline.train(corpus, folder), "spacy", "half an hour"),
    "udpipe": Trainer(_train_udpipe, "ufal.udpipe", "an hour"),
    "crfsuite": Trainer(
        lambda corpus, _, folder: crfsuite.train(corpus, folder), "python-crfsuite", "a quarter of an hour"
    ),
}


def trained(name: str, corpus: Corpus, source: str, run: Path) -> dict[str, Any]:
    """Make sure that ``run / name`` holds the trained system; returns the content of its stamp.

    The stamp, written last, holds the corpus, a digest of its training and dev splits, the seconds that
    training took, whether it had been stopped before, the version of the library, the machine and the date.

    Raises:
        PeerTrainingError: training failed, or the system there was trained on another corpus.
    """
    trainer, folder = TRAINERS[name], run / name
    file, digest = folder / STAMP, corpus_digest(corpus)
    if file.is_file():
        stamp: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if stamp["digest"] != digest:
            raise PeerTrainingError(
                f"{file}: trained on another {stamp['corpus']}; delete {folder} to train it anew"
            )
        return stamp
    print(f"{name}: training (usually {trainer.usually})", flush=True)
    resumed = trainer.resumes and _is_begun(folder)
    began = time.monotonic()
    trainer.train(corpus, source, folder)
    stamp = {
        "corpus": corpus.name,
        "digest": digest,
        "seconds": round(time.monotonic() - began, 1),
        "resumed": resumed,
        "package": trainer.package,
        "version": version(trainer.package),
        "machine": machine(),
        "date": now(),
    }
    write_whole(file, json.dumps(stamp, indent=1) + "\n")
    return stamp


def _is_begun(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def corpus_digest(corpus: Corpus) -> str:
    """SHA-256 over words, tags and trees of the training and dev splits, shortened."""
    digest = hashlib.sha256()
    for sentence in (*corpus.train, *corpus.dev):
        row = [sentence.words, sentence.tags, sentence.heads, sentence.deprels]
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]
