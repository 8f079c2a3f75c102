"""Several teachers as one: an ensemble, a teacher a language, or a teacher a fold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from train.models.batch import Batch
from train.structs import Mixture, StructuredDistribution


@dataclass(frozen=True)
class Committee:
    """Trained models, and which of them speak of a sentence.

    Args:
        members: models of one task with one label set.
        speakers: members by sentence number, where not all of them speak of it.
    """

    members: Sequence[nn.Module]
    speakers: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[list[nn.Module], list[int]]]:
        """The sentences of these numbers, together with the models that speak of them."""
        everyone = tuple(range(len(self.members)))
        by_speakers: dict[tuple[int, ...], list[int]] = {}
        for number in numbers:
            by_speakers.setdefault(self.speakers.get(number, everyone), []).append(number)
        for speakers, group in by_speakers.items():
            yield [self.members[i] for i in speakers], group


def speak(models: Sequence[nn.Module], batch: Batch) -> StructuredDistribution:
    """What one model says of a batch, or the mixture of what several say, each counting the same."""
    if len(models) == 1:
        distribution: StructuredDistribution = models[0](batch)
        return distribution
    weights = torch.full((len(models),), 1 / len(models), device=batch.lengths.device)
    return Mixture([model(batch) for model in models], weights)


def reads_features(models: Sequence[nn.Module]) -> bool:
    """Whether any of the models reads the encoder features of a batch."""
    return any(getattr(model.representation, "encoded_size", 0) > 0 for model in models)
