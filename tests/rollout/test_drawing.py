"""Drawing of tokens: draws follow the distribution after temperature, top-k, top-p and min-p."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mm_cpgd.policy.distribution import sampling_logits
from mm_cpgd.rollout import Sampling, drawing

GRID = 4000


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    greedy = sampling.temperature == 0
    return drawing.draw(sampling_logits(logits, sampling), uniforms, greedy=greedy)


def expected(logits: Tensor, sampling: Sampling) -> NDArray[np.float64]:
    """Compute the expected distribution (V,) in plain steps, one token at a time."""
    scaled = logits.numpy().astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    probabilities = weights / weights.sum()
    if sampling.top_k:
        least = sorted(probabilities, reverse=True)[: sampling.top_k][-1]
        probabilities = np.where(probabilities < least, 0, probabilities)
        probabilities = probabilities / probabilities.sum()
    kept = np.zeros_like(probabilities)
    for token in np.argsort(-probabilities, kind="stable"):
        if kept.sum() >= sampling.top_p:
            break
        kept[token] = probabilities[token]
    kept = kept / kept.sum()
    kept[kept < sampling.min_p * kept.max()] = 0
    return kept / kept.sum()


def frequencies(logits: Tensor, sampling: Sampling) -> NDArray[np.float64]:
    """Return how often each token is drawn by numbers that are evenly spaced in [0, 1)."""
    uniforms = (torch.arange(GRID) + 0.5) / GRID
    tokens = draw(logits.expand(GRID, -1), uniforms, sampling)
    return np.bincount(tokens.numpy(), minlength=logits.numel()) / GRID


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.4},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 1000},
        {"top_p": 0.6},
        {"top_p": 0.05},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.15},
        {"temperature": 0.6, "top_p": 0.95, "min_p": 0.05},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_draws_follow_the_distribution(options: dict[str, float], seed: int) -> None:
    logits = 2 * torch.randn(20, generator=torch.Generator().manual_seed(seed))
    sampling = Sampling(1, **options)  # type: ignore[arg-type]
    wanted, drawn = expected(logits, sampling), frequencies(logits, sampling)
    # An interval of length p holds p * GRID even numbers, give or take one.
    assert np.abs(drawn - wanted).max() <= 1.01 / GRID
    assert ((drawn > 0) <= (wanted > 0)).all()


def support(probabilities: list[float], **options: float) -> list[int]:
    logits = torch.tensor(probabilities, dtype=torch.float64).log().float()
    return np.flatnonzero(frequencies(logits, Sampling(1, **options))).tolist()  # type: ignore[arg-type]


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    assert support([0.4, 0.2, 0.2, 0.2], top_k=2) == [0, 1, 2, 3]
    assert support([0.2, 0.4, 0.3, 0.1], top_k=2) == [1, 2]


@pytest.mark.parametrize(("top_p", "kept"), [(0.45, [0]), (0.55, [0, 1]), (0.75, [0, 1]), (0.85, [0, 1, 2])])
def test_top_p_keeps_the_token_that_crosses_the_threshold(top_p: float, kept: list[int]) -> None:
    assert support([0.5, 0.3, 0.15, 0.05], top_p=top_p) == kept


def test_top_p_applies_to_what_top_k_left() -> None:
    # Of 0.5, 0.3 remain 5/8 and 3/8: the first alone reaches 0.6.
    assert support([0.5, 0.3, 0.15, 0.05], top_k=2, top_p=0.6) == [0]


@pytest.mark.parametrize(("min_p", "kept"), [(0.09, [0, 1, 2, 3]), (0.11, [0, 1, 2]), (0.7, [0])])
def test_min_p_is_relative_to_the_most_probable_token(min_p: float, kept: list[int]) -> None:
    assert support([0.5, 0.3, 0.15, 0.05], min_p=min_p) == kept


def test_temperature_zero_takes_the_most_probable_token() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -torch.inf, 1.0]])
    assert draw(logits, torch.tensor([0.99, 0.99]), Sampling(1, temperature=0)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.01}, {"temperature": 50.0}]
)
def test_forbidden_tokens_are_never_drawn(options: dict[str, float]) -> None:
    logits = torch.zeros(8)
    logits[[0, 5, 7]] = -torch.inf
    edges = torch.tensor([0.0, 1e-9, 1 - 2**-24])
    sampling = Sampling(1, **options)  # type: ignore[arg-type]
    drawn = {
        *np.flatnonzero(frequencies(logits, sampling)),
        *draw(logits.expand(3, -1), edges, sampling).tolist(),
    }
    assert drawn == {1, 2, 3, 4, 6}


def test_the_largest_number_points_at_the_last_possible_token() -> None:
    logits = torch.full((1, 150_000), -1e4)
    logits[0, 10] = 0.0
    assert draw(logits, torch.tensor([1 - 2**-24]), Sampling(1)).item() == 10
    assert draw(logits, torch.tensor([0.0]), Sampling(1)).item() == 10


def test_a_large_vocabulary_is_drawn_accurately() -> None:
    # Uniform logits: the token at the fraction u of the vocabulary, to within rounding of u.
    uniforms = torch.tensor([0.1, 0.5, 0.9, 0.999])
    tokens = draw(torch.zeros(4, 150_000), uniforms, Sampling(1))
    assert (tokens.double() / 150_000 - uniforms.double()).abs().max() < 2 / 150_000


def test_logits_that_are_not_finite_give_some_token() -> None:
    token = draw(torch.full((1, 5), torch.nan), torch.tensor([0.5]), Sampling(1))
    assert 0 <= token.item() < 5


def test_a_rows_draw_depends_on_its_own_number_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(6, 30, generator=generator), torch.rand(6, generator=generator)
    together = draw(logits, uniforms, Sampling(1, top_p=0.9))
    alone = [draw(logits[i : i + 1], uniforms[i : i + 1], Sampling(1, top_p=0.9)).item() for i in range(6)]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [20_000, 20_480, 150_000])
def test_drawing_by_blocks_draws_what_one_running_sum_draws(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(64, size, generator=generator)
    logits[torch.rand(64, size, generator=generator) < 0.3] = -torch.inf
    logits[:, 400:600] = -torch.inf  # the end of a block and the beginning of the next
    uniforms = torch.rand(64, generator=generator)
    uniforms[:2] = torch.tensor([0.0, 1 - 2**-24])
    cumulative = logits.double().softmax(-1).cumsum(-1)
    expected = torch.searchsorted(cumulative, uniforms.double().unsqueeze(1) * cumulative[:, -1:], right=True)
    drawn = draw(logits, uniforms, Sampling(1))
    # float32 rounds probabilities, which may move the border between two tokens past a number.
    assert (drawn == expected.squeeze(1)).float().mean() > 0.95
    assert (logits.gather(1, drawn.unsqueeze(1)) > -torch.inf).all()
