"""The convolutional context: what each position sees, and that padding and neighbours are not seen."""

import pytest
import torch

from train.models.convolution import SentenceConvolution, windows


def context(dilations: tuple[int, ...] = (1, 2)) -> SentenceConvolution:
    torch.manual_seed(0)
    return SentenceConvolution(5, 8, dilations=dilations, dropout=0.3).eval()


def test_windows_are_the_neighbours_at_the_dilation_and_zeros_outside() -> None:
    x = torch.arange(1.0, 5).view(1, 4, 1)
    assert windows(x, 2)[0].tolist() == [[0, 1, 3], [0, 2, 4], [1, 3, 0], [2, 4, 0]]
    assert windows(x, 9)[0].tolist() == [[0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 4, 0]]


def test_a_sentence_has_the_same_states_alone_and_in_any_batch() -> None:
    model = context()
    words = torch.randn(3, 9, 5)
    lengths = torch.tensor([9, 4, 1])
    together = model(words, lengths)
    for number, length in enumerate(lengths.tolist()):
        alone = model(words[number : number + 1, :length], lengths[number : number + 1])
        torch.testing.assert_close(together[number, :length], alone[0], rtol=0, atol=1e-6)
        assert not together[number, length:].any()


@pytest.mark.parametrize("dilations", [(), (1,), (1, 2), (4,)])
def test_a_position_sees_exactly_the_window_of_its_dilations(dilations: tuple[int, ...]) -> None:
    model = context(dilations)
    words = torch.randn(1, 21, 5, requires_grad=True)
    (model(words, torch.tensor([21]))[0, 10] @ torch.randn(8)).backward()
    assert words.grad is not None
    seen = {place - 10 for place in words.grad[0].abs().sum(1).nonzero().flatten().tolist()}
    expected = {-1, 0, 1}
    for dilation in dilations:
        expected = {place + step for place in expected for step in (-dilation, 0, dilation)}
    assert seen == expected
