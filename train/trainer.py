"""The training loop: steps, dev scores, checkpoints that a killed run goes on from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from train.batching import TrainingBatch, TrainingSet
from train.network import Network, load_checkpoint, save_checkpoint
from train.progress import progress_bar
from train.structs import StructuredDistribution

CLIP = 5.0
WARM_UP = 0.05


class TrainingError(RuntimeError):
    """Training that can not go on."""


def fit(
    model: nn.Module,
    network: Network,
    data: TrainingSet,
    *,
    loss: Callable[[StructuredDistribution, TrainingBatch, float], Tensor],
    dev_score: Callable[[nn.Module], float],
    accelerator: Accelerator,
    encoder_learning_rate: float | None = None,
) -> None:
    """Train a model until its dev score stops rising, and leave it with the weights of the best one.

    Args:
        network: how it is trained, and where a checkpoint is written at each evaluation; training goes on
            from one that is there.
        data: its batches are the same for the same seed, so that a resumed run goes on where it was.
        loss: of (the model's distribution over a batch, the batch, share of the training done), a scalar.
        dev_score: larger is better.
        encoder_learning_rate: of a fine-tuned encoder's weights.

    Raises:
        TrainingError: the loss is not finite; the message has the step and the sentences.
        SettingsError: the checkpoint belongs to other settings.
    """
    training, title = network.training, network.title
    groups = _parameter_groups(model, training.learning_rate, encoder_learning_rate)
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98), eps=1e-8, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, training.steps))
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    step, best, best_weights, waited = 0, -math.inf, None, 0
    state = load_checkpoint(network)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, best, best_weights = state["step"], state["best"], state["best_weights"]
        waited = state["waited"]
    stops = {round(training.steps * (i + 1) / training.evaluations) for i in range(training.evaluations)}
    batches = data.batches(training.batch_tokens, network.seed, first=step)
    bar = progress_bar(training.steps, title, "step", initial=step)
    wrapped.train()
    while step < training.steps and waited < training.patience:
        batch = next(batches)
        with accelerator.autocast():
            value = loss(wrapped(batch.inputs), batch, step / training.steps)
        if not torch.isfinite(value):
            raise TrainingError(
                f"{title}: the loss is {value.item()} at step {step + 1} of {training.steps}, on sentences "
                f"{batch.numbers}; lower the learning rate, or look at these sentences"
            )
        optimizer.zero_grad()
        accelerator.backward(value)
        accelerator.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        step += 1
        bar.update()
        if step in stops:
            score = dev_score(model)
            model.train()
            waited += 1
            if score > best or best_weights is None:
                best, waited = score, 0
                best_weights = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
            bar.set_postfix(loss=f"{value.item():.3f}", dev=f"{score:.2f}", best=f"{best:.2f}")
            save_checkpoint(
                network,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                schedule=schedule.state_dict(),
                step=step,
                best=best,
                waited=waited,
                best_weights=best_weights,
            )
    bar.close()
    assert best_weights is not None
    model.load_state_dict(best_weights)
    # Preparing wrapped the model's forward in autocast; from here on a trained model is what a loaded one is.
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    accelerator.free_memory()
    model.eval()


def _parameter_groups(
    model: nn.Module, learning_rate: float, encoder_learning_rate: float | None
) -> Sequence[dict[str, Any]]:
    encoder: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (encoder if name.startswith("representation.encoder.") else rest).append(parameter)
    groups: list[dict[str, Any]] = [{"params": rest, "lr": learning_rate}]
    if encoder:
        groups.append({"params": encoder, "lr": encoder_learning_rate or learning_rate})
    return groups


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear to zero, as a share of the full rate."""
    warm = max(1, round(WARM_UP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))
