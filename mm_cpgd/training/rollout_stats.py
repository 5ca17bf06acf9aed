"""Statistics of one rollout batch as one tensor over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mm_cpgd.algorithms.selection import distinct_share, has_signal
from mm_cpgd.rollout import Completion, Group
from rewards import RuleError, Status
from rewards.compose import Scored

FAILED = (Status.ERROR, Status.TIMEOUT)


@dataclass(frozen=True)
class RolloutStats:
    """Statistics of P prompts by G completions, in prompt order.

    Attributes:
        values: (P, G, 4 + R) float64: total reward, length in own tokens, finished, failed, then the score of
            each of R rules; NaN where there is no score, and everywhere for a prompt that could not be read.
    """

    values: Tensor

    @property
    def rewards(self) -> Tensor:
        """Rewards (P, G) before shaping, NaN where unscored."""
        return self.values[..., 0]

    @property
    def lengths(self) -> Tensor:
        """Tokens (P, G)."""
        return self.values[..., 1]

    @property
    def accuracy(self) -> Tensor:
        """Scores (P, G) of the first rule of the config, which selection takes as accuracy."""
        return self.values[..., 4]

    @property
    def finished(self) -> Tensor:
        """1 where a completion (P, G) ended by itself, 0 where a limit cut it off."""
        return self.values[..., 2]

    @property
    def components(self) -> Tensor:
        """Scores (P, G, R) of the rules, NaN where there is none."""
        return self.values[..., 4:]

    @property
    def lost(self) -> Tensor:
        """(P,) bool, prompts that could not be read, so that nothing was sampled."""
        return self.lengths.isnan().all(1)

    def silent_rules(self, rules: Sequence[str]) -> list[str]:
        """Return the rules that scored no completion, if any completion's scoring failed."""
        failed, scores = self.values[..., 3], self.values[..., 4:]
        if not failed.nansum():
            return []
        silent = scores.isnan().flatten(0, 1).all(0).tolist()
        return [rule for rule, is_silent in zip(rules, silent, strict=True) if is_silent]

    def metrics(self, rules: Sequence[str]) -> dict[str, float]:
        """Return the metrics of all completions, whether they take part in the update or not."""
        sampled = self.values[~self.lengths.isnan()]
        total, lengths, finished, failed, *scores = sampled.unbind(-1)
        scored = total[~total.isnan()]
        return {
            "reward/mean": float(scored.mean()),
            "reward/std": float(scored.std(correction=0)) if len(scored) else float("nan"),
            **{f"reward/{rule}": float(score.nanmean()) for rule, score in zip(rules, scores, strict=True)},
            "reward/unscored": float(total.isnan().double().mean()),
            "reward/failed": float(failed.mean()),
            "data/lost": float(self.lost.sum()),
            "accuracy/train": float(self.accuracy.nanmean()),
            "groups/no_signal": float(1 - has_signal(self.rewards[~self.lost]).double().mean()),
            "completion/length_mean": float(lengths.mean()),
            "completion/truncated": float(1 - finished.mean()),
            "tokens/sampled": float(lengths.sum()),
        }


def check_rules(accelerator: Accelerator, failures: Mapping[str, str], silent: Sequence[str]) -> None:
    """End the run if a rule failed wherever it was called: nothing could be learned, or learned rightly.

    Args:
        accelerator: the run's accelerator.
        failures: of each rule that has failed on this process, its newest error and traceback.
        silent: rules without any score, the same on all processes.

    Raises:
        RuleError: on all processes, with the rule's own error and traceback.
    """
    if not silent:
        return
    everywhere: list[dict[str, str]] = gather_object([dict(failures)])
    for rule in silent:
        found = next((one[rule] for one in everywhere if rule in one), None)
        if found is not None:
            raise RuleError(
                f"reward {rule!r} scored no completion, because its rule failed on all of them; fix the rule "
                f"(mm-cpgd rewards test tries it on completions). The newest failure: {found}"
            )


def gather_stats(
    accelerator: Accelerator, groups: Sequence[Group], scored: Sequence[Sequence[Scored]], width: int
) -> RolloutStats:
    """Gather the groups of all processes in prompt order; prompt j belongs to process j mod W.

    Groups of fewer than ``width`` completions, the most of all processes, are filled up with NaN.
    """
    rows = [
        [_numbers(completion, score) for completion, score in zip(group, scores, strict=True)]
        if group
        else [[float("nan")] * (4 + len(score.components)) for score in scores]  # a lost row
        for group, scores in zip(groups, scored, strict=True)
    ]
    for row in rows:
        row += [[float("nan")] * len(row[0])] * (width - len(row))
    own = torch.tensor(rows, dtype=torch.float64, device=accelerator.device)
    gathered: Tensor = accelerator.gather(own)
    by_process = gathered.unflatten(0, (accelerator.num_processes, -1))
    return RolloutStats(by_process.transpose(0, 1).flatten(0, 1).cpu())


def gather_diversity(accelerator: Accelerator, groups: Sequence[Group], n: int) -> Tensor:
    """Return the share of distinct n-grams of each prompt's completions, (P,) in [0, 1] of all processes."""
    shares = [distinct_share([one.tokens[one.own].tolist() for one in group], n) for group in groups]
    gathered: Tensor = accelerator.gather(
        torch.tensor(shares, dtype=torch.float64, device=accelerator.device)
    )
    return gathered.unflatten(0, (accelerator.num_processes, -1)).transpose(0, 1).flatten().cpu()


def _numbers(completion: Completion, scored: Scored) -> list[float]:
    failed = any(verdict.status in FAILED for verdict in scored.components.values())
    scores = [scored.total, *(verdict.score for verdict in scored.components.values())]
    total, *own = [float("nan") if score is None else float(score) for score in scores]
    return [total, float(completion.length), float(completion.finished), float(failed), *own]
