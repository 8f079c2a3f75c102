"""Several teachers as one: a mixture, a teacher a language, or a teacher a fold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from train.models.batch import Batch
from train.structs import Mixture, StructuredDistribution


@dataclass(frozen=True)
class Ensemble:
    """Trained models, and which of them predict a sentence.

    Args:
        members: models of one task with one label set.
        assigned: members by sentence number, where not all of them predict it.
    """

    members: Sequence[nn.Module]
    assigned: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def groups(self, numbers: Sequence[int]) -> Iterator[tuple[list[nn.Module], list[int]]]:
        """The sentences of these numbers, together with the models that predict them."""
        all_members = tuple(range(len(self.members)))
        groups: dict[tuple[int, ...], list[int]] = {}
        for number in numbers:
            groups.setdefault(self.assigned.get(number, all_members), []).append(number)
        for assigned, group in groups.items():
            yield [self.members[i] for i in assigned], group

    def members_for(self, numbers: Sequence[int]) -> list[nn.Module]:
        """The models that predict any of these sentences: without teachers that only score a fold."""
        return list(dict.fromkeys(model for models, _ in self.groups(numbers) for model in models))


def predict(models: Sequence[nn.Module], batch: Batch) -> StructuredDistribution:
    """The distribution of one model, or the mixture of several, each counting the same."""
    if len(models) == 1:
        distribution: StructuredDistribution = models[0](batch)
        return distribution
    weights = torch.full((len(models),), 1 / len(models), device=batch.lengths.device)
    return Mixture([model(batch) for model in models], weights)


def reads_features(models: Sequence[nn.Module]) -> bool:
    """Whether any of the models reads the encoder features of a batch."""
    return any(getattr(model.representation, "encoded_size", 0) > 0 for model in models)
