"""How the weight of the teacher falls during training."""


def teacher_weight(progress: float, anneal: float) -> float:
    """λ of ``λ·KD + (1−λ)·NLL``: from 1, linearly, at ``anneal`` per whole training, never below 0.

    Args:
        progress: share of the training that is done, 0 to 1.
        anneal: 0 keeps λ = 1; 1 reaches 0 at the end; 1.5 reaches 0 after two thirds.

    >>> teacher_weight(0.5, anneal=0.5), teacher_weight(0.9, anneal=1.5)
    (0.75, 0.0)
    """
    return max(0.0, 1.0 - anneal * progress)
