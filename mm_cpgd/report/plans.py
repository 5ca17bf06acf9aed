"""Which charts the report shows: titles, metrics and what a healthy run looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """What one chart shows.

    Attributes:
        lines: label by metric key; keys that a run lacks are left out.
        about: one sentence on what it is and what a healthy run shows.
        percent: the values are shares.
        band: metric that is drawn as ± around the first line.
        points: label by key of evaluation shares; points with an interval where ``eval/n`` is there.
    """

    title: str
    about: str
    lines: Mapping[str, str]
    percent: bool = False
    band: str | None = None
    points: Mapping[str, str] = field(default_factory=dict)


PLANS = (
    Plan(
        "Loss", "Negative log-likelihood of a solution's token, in nats. Should fall.", {"sft/loss": "loss"}
    ),
    Plan(
        "Reward",
        "Mean over completions, ± one standard deviation. Should rise.",
        {"reward/mean": "mean"},
        band="reward/std",
    ),
    Plan(
        "Accuracy",
        "Share of right answers: sampled on training prompts, greedy on held-out ones.",
        {"accuracy/train": "train"},
        percent=True,
        points={"eval/accuracy": "held-out"},
    ),
    Plan(
        "Format",
        "Mean format score; on held-out examples the share in the asked form.",
        {"reward/format": "train"},
        percent=True,
        points={"eval/format": "held-out"},
    ),
    Plan(
        "Policy drift",
        "KL to the policy that sampled, k3 estimate per token. Should stay small.",
        {"policy/drift": "drift"},
    ),
    Plan(
        "Clip fraction",
        "Share of tokens whose gradient the clip stops.",
        {"policy/clip_fraction": "clipped"},
        percent=True,
    ),
    Plan(
        "Ratio to the old policy",
        "Largest and smallest π/π_old of any token. Should not run away from 1.",
        {"policy/ratio_max": "largest", "policy/ratio_min": "smallest"},
    ),
    Plan(
        "Entropy",
        "Of the next token, in nats. A fall to 0 means that exploration has ended.",
        {"policy/entropy": "entropy"},
    ),
    Plan("Completion length", "Mean, in tokens.", {"completion/length_mean": "tokens"}),
    Plan(
        "Shares to watch",
        "Completions cut at the limit; prompts whose completions all earn the same; unscored completions.",
        {"completion/truncated": "cut off", "groups/no_signal": "no signal", "reward/unscored": "no score"},
        percent=True,
    ),
    Plan("Gradient norm", "Before clipping.", {"optimizer/grad_norm": "norm"}),
    Plan("Learning rate", "Of the last optimizer step.", {"optimizer/learning_rate": "rate"}),
    Plan(
        "Seconds an iteration",
        "Where the time goes.",
        {"seconds/rollout": "rollout", "seconds/reward": "reward", "seconds/update": "update"},
    ),
    Plan("Objective", "What the optimizer minimises; its level means little.", {"objective/loss": "loss"}),
)
