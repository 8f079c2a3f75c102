import torch

from benchmarks.core import ChainScores, chain, loop


def test_the_plain_loop_answers_as_the_chain_does_at_every_length() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = ChainScores(
        torch.randn(4, 6, 5, generator=generator),
        torch.randn(5, 5, generator=generator),
        torch.tensor([6, 1, 4, 2]),
    )
    torch.testing.assert_close(loop(scores), chain(scores), rtol=1e-4, atol=1e-5)
