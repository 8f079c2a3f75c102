"""The training loop: steps, dev scores, checkpoints that a killed run goes on from."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

CLIP = 5.0
WARM_UP = 0.05
POOL_BATCHES = 32


class TrainingError(RuntimeError):
    """Training that can not go on."""


@dataclass(frozen=True)
class Fitting:
    """How long and how fast to train."""

    steps: int
    batch: int
    learning_rate: float
    evaluations: int
    encoder_learning_rate: float | None = None


def batches(
    epoch: Callable[[np.random.Generator], np.ndarray], lengths: np.ndarray, size: int, seed: int
) -> Iterator[list[int]]:
    """Batches of sentence numbers without end, of similar lengths, the same for the same seed.

    Args:
        epoch: draws the sentence numbers of one epoch.
        lengths: tokens of each sentence.
        size: sentences a batch.
    """
    for number in range(2**31):
        generator = np.random.default_rng([seed, number])
        order = epoch(generator)
        if not len(order):
            raise TrainingError("there is no sentence to train on")
        pools = [order[i : i + size * POOL_BATCHES] for i in range(0, len(order), size * POOL_BATCHES)]
        made = []
        for pool in pools:
            by_length = pool[np.argsort(lengths[pool], kind="stable")]
            made += [by_length[i : i + size].tolist() for i in range(0, len(by_length), size)]
        for i in generator.permutation(len(made)):
            yield made[i]


def fit(
    model: nn.Module,
    *,
    loss: Callable[[nn.Module, list[int], float], Tensor],
    evaluate: Callable[[nn.Module], float],
    stream: Iterator[list[int]],
    fitting: Fitting,
    accelerator: Accelerator,
    checkpoint: Path,
    settings: dict[str, Any],
    title: str,
) -> float:
    """Train a model and leave it with the weights of its best dev score, which is returned.

    Args:
        loss: of (model, sentence numbers, share of the training done), a scalar.
        evaluate: the dev score, larger is better.
        stream: batches; a resumed run passes the same stream from its start.
        checkpoint: written at each evaluation; where it exists already, training goes on from it.
        settings: what the model is trained with; a checkpoint of other settings is refused.
        title: what the progress bar calls it.

    Raises:
        TrainingError: the loss is not finite; says at which step and on which sentences. Or the checkpoint
            belongs to other settings.
    """
    optimizer = torch.optim.Adam(_parameter_groups(model, fitting), betas=(0.9, 0.98), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, fitting.steps))
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    step, best, best_weights = 0, -math.inf, None
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        check_settings(checkpoint, json.loads(state["settings"]), settings)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        step, best, best_weights = state["step"], state["best"], state["best_weights"]
    stops = {round(fitting.steps * (i + 1) / fitting.evaluations) for i in range(fitting.evaluations)}
    for _ in range(step):
        next(stream)
    bar = progress_bar(fitting.steps, title, "step", initial=step)
    wrapped.train()
    while step < fitting.steps:
        numbers = next(stream)
        with accelerator.autocast():
            value = loss(wrapped, numbers, step / fitting.steps)
        if not torch.isfinite(value):
            raise TrainingError(
                f"{title}: the loss is {value.item()} at step {step + 1} of {fitting.steps}, on sentences "
                f"{numbers}; lower the learning rate, or look at these sentences"
            )
        optimizer.zero_grad()
        accelerator.backward(value)
        accelerator.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        step += 1
        bar.update()
        if step in stops:
            score = evaluate(model)
            model.train()
            if score > best or best_weights is None:
                best = score
                best_weights = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
            bar.set_postfix(loss=f"{value.item():.3f}", dev=f"{score:.2f}", best=f"{best:.2f}")
            state = {
                "settings": json.dumps(settings),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
                "step": step,
                "best": best,
                "best_weights": best_weights,
            }
            _save(state, checkpoint)
    bar.close()
    assert best_weights is not None
    model.load_state_dict(best_weights)
    # Preparing wrapped the model's forward in autocast; from here on a trained model is what a loaded one is.
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    accelerator.free_memory()
    model.eval()
    return best


def check_settings(where: Path, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Refuse to go on from a model that was trained with other settings, naming the first that differs."""
    wanted = json.loads(json.dumps(wanted))
    for name in wanted:
        old = (found or {}).get(name)
        if old != wanted[name]:
            raise TrainingError(
                f"{where}: {name} was {json.dumps(old)}, the recipe now says {json.dumps(wanted[name])}; "
                "delete the folder to train it again, or choose another --out"
            )


def progress_bar(total: int, title: str, unit: str, initial: int = 0) -> tqdm:
    """A bar with the time left: redrawn often on a terminal, seldom in a log."""
    interval = 0.5 if sys.stderr.isatty() else 20
    return tqdm(total=total, initial=initial, desc=title, unit=unit, dynamic_ncols=True, mininterval=interval)


def sentences_per_second(run: Callable[[], Any], sentences: int) -> float:
    """Speed of one pass over so many sentences, after a warm-up pass."""
    run()
    start = time.perf_counter()
    run()
    return sentences / (time.perf_counter() - start)


def _parameter_groups(model: nn.Module, fitting: Fitting) -> Sequence[dict[str, Any]]:
    encoder: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (encoder if name.startswith("representation.encoder.") else rest).append(parameter)
    groups: list[dict[str, Any]] = [{"params": rest, "lr": fitting.learning_rate}]
    if encoder:
        groups.append({"params": encoder, "lr": fitting.encoder_learning_rate or fitting.learning_rate})
    return groups


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear to zero, as a share of the full rate."""
    warm = max(1, round(WARM_UP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))


def _save(state: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
