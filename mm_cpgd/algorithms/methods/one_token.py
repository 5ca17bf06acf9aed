"""One-token rollout: written completions as rollouts of a single token, at every position.

The policy draws tokens after each prefix of a completion; the completion's own token earns 1, any other beta.
In fine-tuning on solutions A is 1.
"""

from __future__ import annotations

import torch
from pydantic import NonPositiveFloat, PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.part_info import described


@described(
    "S = A·mean over {draws} tokens a of w(a)·log π(a), a drawn from softmax(logits / {temperature}), "
    "w(a) = 1 for the completion's own token, else {beta}",
    source="one-token rollout, arXiv 2509.26313",
    group="draws of single tokens",
    use="solutions that the policy did not write: it learns what it nearly does already, and forgets less",
    draws=("draws", "temperature"),
    without_old=True,
    differs=(
        "The loss and the numbers 256, 1.3 and −0.1 could not be seen in the paper. Here they are a "
        "reconstruction from its description.",
        "The paper has no advantage. Here its term is multiplied by A, which is 1 in fine-tuning, so that it "
        "also serves sampled completions.",
    ),
)
def one_token(
    advantages: Tensor,
    drawn_logprobs: Tensor,
    drawn_own: Tensor,
    *,
    draws: PositiveInt = 256,
    temperature: PositiveFloat = 1.3,
    beta: NonPositiveFloat = -0.1,
) -> tuple[Tensor, Tensor]:
    """One-token rollout: the policy gradient of tokens drawn after each prefix, without baseline or ratio.

    With a temperature of 1 its gradient has the expectation of that of ``one_token_exact``. Where no drawn
    token is the completion's own, only the others are pushed down; with beta = 0 the position then has no
    gradient.

    Args:
        advantages: (n, 1) or (n, T).
        drawn_logprobs: (n, T, K) log π of the drawn tokens, at the temperature of sampling, with gradient.
        drawn_own: (n, T, K) whether the drawn token is the completion's own.
        draws: K.
        temperature: of the draws; above 1 they vary more.
        beta: reward of a token that is not the completion's own, at most 0.

    Returns:
        Terms (n, T), clipped (n, T): none is.
    """
    rewards = torch.full_like(drawn_logprobs, beta).masked_fill(drawn_own, 1.0)
    terms = advantages * (rewards * drawn_logprobs).mean(2)
    return terms, torch.zeros_like(terms, dtype=torch.bool)


@described(
    "S = A·(1 − {beta})·π",
    gradient="A·(1 − {beta})·π",
    source="expectation of one-token rollout, arXiv 2509.26313; the weights of dynamic fine-tuning, "
    "arXiv 2508.05629",
    group="draws of single tokens",
    use="as one_token, without its noise and its cost",
    without_old=True,
    differs=("The paper draws. Here it is the expectation of its gradient at a temperature of 1, derived.",),
)
def one_token_exact(
    log_ratio: Tensor, old_logprobs: Tensor, advantages: Tensor, *, beta: NonPositiveFloat = -0.1
) -> tuple[Tensor, Tensor]:
    """One-token rollout without draws: every token's likelihood is weighted by its own probability.

    E over a ~ π of w(a)·∇log π(a) is (1 − beta)·π·∇log π of the completion's own token, because the constant
    part of w has no gradient in expectation.

    Args:
        log_ratio: (n, T).
        old_logprobs: (n, T); 0 in fine-tuning, where ``log_ratio`` is log π.
        advantages: (n, 1) or (n, T).
        beta: reward of a token that is not the completion's own, at most 0.

    Returns:
        Terms (n, T), clipped (n, T): none is.
    """
    terms = advantages * (1 - beta) * (log_ratio + old_logprobs).exp()
    return terms, torch.zeros_like(terms, dtype=torch.bool)
