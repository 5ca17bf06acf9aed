"""Sampling distribution: the expected gradient is that of the sampling policy's return; kept tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy, token_logprobs
from mm_cpgd.policy.distribution import (
    KeptTokens,
    Sampling,
    kept_mask,
    kept_mass,
    kept_of,
    sampling_logits,
)
from tests.fakes.sampling import flat, sampled

# One cut each, and temperatures; the two-token policy below has two more tokens to lose.
SAMPLINGS = [
    Sampling(2, temperature=1.7),
    Sampling(2, temperature=0.5, top_k=2),
    Sampling(2, temperature=1.7, top_p=0.7),
    Sampling(2, min_p=0.4),
    Sampling(2, temperature=1.3, top_k=3, top_p=0.8, min_p=0.2),
]


def reward(tokens: tuple[int, ...]) -> float:
    return sum((position + 1) * (token + 0.5) ** 2 for position, token in enumerate(tokens))


class TwoTokens(nn.Module):
    """A policy over sequences of two of V tokens: a table of logits, the second given the first.

    Tokens 0 and 1 are likely; ``forbidden`` is as likely, and can only be told by its list.
    """

    forbidden = torch.tensor([4])

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        bias = torch.tensor([1.0, 0.8, -0.4, -1.5, 1.0])
        table = bias + 0.3 * torch.randn(6, 5, generator=generator)
        self.table = nn.Parameter(table.double())

    def probabilities(self, row: int, sampling: Sampling) -> Tensor:
        """Compute the sampling distribution (V,) in plain steps, with the kept set as a constant."""
        logits = self.table[row] / sampling.temperature
        allowed = [token for token in range(5) if token not in self.forbidden]
        order = sorted(allowed, key=lambda token: -logits[token].item())
        if sampling.top_k:
            order = order[: sampling.top_k]
        weights = {token: logits[token].exp().item() for token in order}
        total, before, kept = sum(weights.values()), 0.0, []
        for token in order:
            if before < sampling.top_p * total and weights[token] >= sampling.min_p * weights[order[0]]:
                kept.append(token)
            before += weights[token]
        out = torch.zeros(5, dtype=torch.float64)
        return out.index_put((torch.tensor(kept),), logits[kept].softmax(-1))

    def expected_return(self, sampling: Sampling) -> Tensor:
        first = self.probabilities(0, sampling)
        second = [self.probabilities(1 + token, sampling) for token in range(5)]
        pairs = itertools.product(range(5), repeat=2)
        return torch.stack([first[a] * second[a][b] * reward((a, b)) for a, b in pairs]).sum()

    def trained_logprobs(
        self, tokens: tuple[int, ...], sampling: Sampling, renormalise: bool = True
    ) -> Tensor:
        """Return log-probabilities (2,) as training computes them, over the kept set of the sampler."""
        rows = self.table[[0, 1 + tokens[0]]]
        blocked = rows.detach().index_fill(-1, self.forbidden, -torch.inf)
        kept = kept_of(sampling_logits(blocked, sampling)) if sampling.has_cuts and renormalise else None
        head = nn.Linear(5, 5, bias=False, dtype=torch.float64)
        head.weight = nn.Parameter(torch.eye(5, dtype=torch.float64), requires_grad=False)
        values, _ = token_logprobs(
            rows,
            head,
            torch.tensor(tokens),
            temperature=sampling.temperature,
            forbidden=self.forbidden,
            kept=kept,
        )
        return values


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_expected_gradient_is_that_of_the_sampling_policys_return(sampling: Sampling) -> None:
    policy = TwoTokens()
    (wanted,) = torch.autograd.grad(policy.expected_return(sampling), policy.table)
    expected = torch.zeros_like(policy.table)
    mass = 0.0
    for tokens in itertools.product(range(5), repeat=2):
        first = policy.probabilities(0, sampling)[tokens[0]]
        probability = (first * policy.probabilities(1 + tokens[0], sampling)[tokens[1]]).item()
        if probability:
            logprobs = policy.trained_logprobs(tokens, sampling)
            assert float(logprobs.sum().exp()) == pytest.approx(probability, rel=1e-12)
            surrogate = probability * reward(tokens) * logprobs.sum()
            expected += torch.autograd.grad(surrogate, policy.table)[0]
            mass += probability
    assert mass == pytest.approx(1, abs=1e-12)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(expected, wanted, rtol=0, atol=1e-12)


def test_logprobs_at_temperature_one_would_be_biased() -> None:
    # What the test above would find without temperature, cuts and forbidden tokens in the log-probabilities.
    policy, sampling = TwoTokens(), Sampling(2, temperature=1.7, top_p=0.7)
    (wanted,) = torch.autograd.grad(policy.expected_return(sampling), policy.table)
    expected = torch.zeros_like(policy.table)
    for tokens in itertools.product(range(5), repeat=2):
        first = policy.probabilities(0, sampling)[tokens[0]]
        probability = first * policy.probabilities(1 + tokens[0], sampling)[tokens[1]]
        plain = policy.table[[0, 1 + tokens[0]]].log_softmax(-1)[[0, 1], list(tokens)]
        expected += torch.autograd.grad(probability.detach() * reward(tokens) * plain.sum(), policy.table)[0]
    assert (expected - wanted).abs().max() > 0.05


@pytest.mark.parametrize("sampling", SAMPLINGS[1:])
def test_reweighting_gives_the_gradient_over_all_tokens_restricted_to_the_kept_ones(
    sampling: Sampling,
) -> None:
    # E over kept tokens of (π / μ) A ∇log π = sum over kept tokens of π A ∇log π, for one token.
    policy = TwoTokens()
    full = Sampling(2, temperature=sampling.temperature)
    pi, mu = policy.probabilities(0, full), policy.probabilities(0, sampling)
    kept = mu > 0
    rewards = torch.arange(5).double() ** 2
    (wanted,) = torch.autograd.grad((pi * rewards)[kept].sum(), policy.table)
    found = torch.zeros_like(policy.table)
    for token in kept.nonzero()[:, 0].tolist():
        logprob = policy.trained_logprobs((token, 0), sampling, renormalise=False)[0]
        weight = logprob.exp().item() / mu[token].item()
        assert weight <= 1 + 1e-12
        found += torch.autograd.grad(mu[token].item() * weight * rewards[token] * logprob, policy.table)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_entropy_and_its_gradient_ignore_tokens_of_probability_zero() -> None:
    logits = torch.tensor([[0.3, -0.2, 5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    head = nn.Linear(4, 4, bias=False, dtype=torch.float64)
    head.weight = nn.Parameter(torch.eye(4, dtype=torch.float64), requires_grad=False)
    kept = (torch.tensor([2]), torch.tensor([0, 1]))
    _, entropy = token_logprobs(logits, head, torch.tensor([1]), entropy_gradient=True, kept=kept)
    (found,) = torch.autograd.grad(entropy.sum(), logits)
    two = logits.detach()[0, :2].requires_grad_()
    plain = -(two.softmax(0) * two.log_softmax(0)).sum()
    (wanted,) = torch.autograd.grad(plain, two)
    assert entropy.item() == pytest.approx(plain.item(), abs=1e-12)
    torch.testing.assert_close(found, torch.cat([wanted, torch.zeros(2)])[None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_kept_tokens_are_split_with_the_chunks(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(7, 5, generator=generator), nn.Linear(5, 11, bias=False)
    masks = torch.rand(7, 11, generator=generator) < 0.4
    masks[3] = True
    targets = torch.randint(11, (7,), generator=generator)
    masks[torch.arange(7), targets] = True
    counts, ids = kept_of(torch.zeros(7, 11).masked_fill(~masks, -torch.inf))
    counts[3] = 0  # all tokens: then none is listed
    ids = torch.cat([row.nonzero()[:, 0] for number, row in enumerate(masks) if number != 3]).int()
    assert torch.equal(kept_mask(counts, ids, 11), masks)
    found = token_logprobs(hidden, head, targets, chunk=chunk, kept=(counts, ids))[0]
    wanted = head(hidden).masked_fill(~masks, -torch.inf).log_softmax(-1)[torch.arange(7), targets]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_kept_tokens_follow_their_rows_and_positions() -> None:
    lists = [[[1, 4], [2], [0, 1, 2]], [[7]], [[3, 5], [6]]]
    rows = [
        KeptTokens(
            torch.tensor([[len(ids) for ids in row]], dtype=torch.int32),
            torch.tensor([token for ids in row for token in ids], dtype=torch.int32),
        )
        for row in lists
    ]
    stacked = KeptTokens.stack(rows)
    assert stacked.counts.tolist() == [[2, 1, 3], [1, 0, 0], [2, 1, 0]]
    counts, ids = stacked.at(torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0]))
    assert (counts.tolist(), ids.tolist()) == ([1, 3, 1], [6, 0, 1, 2, 7])
    chosen = stacked.select(torch.tensor([2, 0]), 2)
    assert (chosen.counts.tolist(), chosen.ids.tolist()) == ([[2, 1], [2, 1]], [3, 5, 6, 1, 4, 2])
    back = KeptTokens.at_positions((3, 3), torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0]), counts, ids)
    assert back.counts.tolist() == [[0, 0, 3], [1, 0, 0], [0, 1, 0]]
    assert back.ids.tolist() == [0, 1, 2, 7, 6]
    assert KeptTokens.stack([]).counts.shape == (0, 1)


@pytest.fixture(scope="module")
def padded_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with 128 rows more than its tokenizer has tokens, as published models have."""
    folder = tmp_path_factory.mktemp("padded")
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32)
    size = model.config.get_text_config().vocab_size
    model.resize_token_embeddings(size + 128, mean_resizing=False)
    with torch.no_grad():  # as likely as tokens that exist
        model.get_input_embeddings().weight[-128:] = model.get_input_embeddings().weight[20:148]
        if model.get_output_embeddings() is not model.get_input_embeddings():
            model.get_output_embeddings().weight[-128:] = model.get_output_embeddings().weight[20:148]
    model.save_pretrained(folder)
    for file in tiny_folder.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_rows_that_the_tokenizer_lacks_are_never_sampled_and_have_no_probability(
    padded_folder: Path, tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    padded = load_policy(PolicyConfig(model=str(padded_folder), dtype="float32"))
    size = len(padded.tokenizer)
    rows = padded.model.get_output_embeddings().out_features
    assert rows >= size + 128
    assert set(range(size, rows)) <= set(padded.forbidden_ids)
    image = noise_image(56, 56)
    examples = [Example("1", "How many?", "3"), Example("2", "What is here?", "3", images=(image,))]
    own = [padded.encoder.encode(example) for example in examples]
    seeds = [list(range(8)), list(range(8, 16))]
    groups = sampled(padded, own, seeds, temperature=1.5)
    # The same text, as the rows have no probability: completions and log-probabilities of the plain model.
    for one, plain in zip(flat(groups), flat(sampled(tiny_policy, own, seeds, temperature=1.5)), strict=True):
        assert one.tokens.max() < size
        assert one.tokens.tolist() == plain.tokens.tolist()
        torch.testing.assert_close(one.logprobs, plain.logprobs, rtol=0, atol=1e-5)


def test_gaps_in_the_tokenizer_are_forbidden_too(
    tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = dict(tiny_policy.tokenizer.get_vocab())
    gap = sorted(vocabulary.values())[50]
    left = {text: token for text, token in vocabulary.items() if token != gap}
    monkeypatch.setattr(tiny_policy, "_unused_ids", None)
    monkeypatch.setattr(type(tiny_policy.tokenizer), "get_vocab", lambda self: left)
    assert gap in tiny_policy.forbidden_ids


def test_the_kept_mass_is_the_probability_that_the_cuts_leave() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1]]).log()
    found = kept_mass(logits, torch.tensor([0, 3]), Sampling(1, top_k=2))
    # The second position's own token was drawn, so the engine kept it.
    torch.testing.assert_close(found.exp(), torch.tensor([0.8, 0.8]))


def test_the_kept_mass_is_of_the_distribution_at_the_temperature() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]])
    found = kept_mass(logits, torch.tensor([0]), Sampling(1, temperature=2.0, top_k=1))
    torch.testing.assert_close(found.exp(), (logits / 2).softmax(-1)[:, 0])


def test_in_vllms_order_top_p_is_of_what_min_p_left() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    both = Sampling(1, top_p=0.82, min_p=0.25)
    # Of all tokens 0.5 + 0.3 is below 0.82, of the three that min-p leaves (0.95) it is 0.842.
    assert kept_of(sampling_logits(logits, both))[1].tolist() == [0, 1, 2]
    assert kept_of(sampling_logits(logits, replace(both, min_p_first=True)))[1].tolist() == [0, 1]


def test_min_p_before_top_p_leaves_less_for_top_p_to_divide() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.12, 0.08]]).log()
    # Top-p keeps a token as long as those before it have less than 0.85: 0.8 of 1, but 0.8 / 0.92 = 0.87.
    for first, left in ((False, 3), (True, 2)):
        kept = sampling_logits(logits, Sampling(1, top_p=0.85, min_p=0.2, min_p_first=first))
        assert kept.isfinite().tolist() == [[True] * left + [False] * (4 - left)]
