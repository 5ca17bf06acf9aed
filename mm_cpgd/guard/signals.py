"""Collapse signals: the test, the probable cause and the remedy of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm_cpgd.errors import UserError
from mm_cpgd.guard.trend_tests import Above, Falls, Finding, History, Jumps, Rises, Test, fall_of

REWARD = "reward/mean"


@dataclass(frozen=True)
class CollapseSignal:
    """A statistical symptom of a collapse.

    Attributes:
        name: name in ``metrics.jsonl`` (``guard/NAME``) and in ``guard.ignore``.
        test: test of one metric against its history.
        cause: probable cause.
        remedy: what to change in the config.
        actionable: whether it triggers the actions rollback and stop; otherwise it only warns.
        reward_fall: standard deviations of noise by which the reward must be below its recent best at the
            same time. 0: independent of the reward.
    """

    name: str
    test: Test
    cause: str
    remedy: str
    actionable: bool = False
    reward_fall: float = 0.0

    def find(self, history: History) -> Finding | None:
        """Test the newest row; strength 1 is the threshold. None: too few rows to decide."""
        found = self.test(history)
        if found is None or not self.reward_fall or found.strength <= 0:
            return found
        fall = fall_of(history, REWARD, over=2)
        if fall is None:
            return None
        strength = min(found.strength, fall.sigmas / self.reward_fall)
        return Finding(strength, f"{found.text}, while {fall.text}")


STEP = "lower training.learning_rate or training.inner_epochs, or raise the policy drift's alpha"
FEWER = "lower training.inner_epochs or training.learning_rate"

# fmt: off
SIGNALS: tuple[CollapseSignal, ...] = (
    CollapseSignal("diverged", Above("guard/diverged", 1, over=1),
        "steps overflow", "lower training.learning_rate or training.max_grad_norm", actionable=True),
    CollapseSignal("not_finite", Above("optimizer/skipped", 1, over=2),
        "steps overflow", "lower training.learning_rate or training.max_grad_norm", actionable=True),
    CollapseSignal("drift_extreme", Above("policy/drift", 1.0, over=1),
        "one iteration moves the policy far from the old policy", STEP, actionable=True),
    CollapseSignal("drift_high", Above("policy/drift", 0.065, over=2),
        "every iteration moves the policy far from the old policy", STEP, actionable=True),
    CollapseSignal("entropy_rise", Rises("policy/entropy", 3.0), "the policy unlearns", STEP,
        actionable=True, reward_fall=2.5),
    CollapseSignal("reward_fall", Falls(REWARD, sigmas=3.2, share=0.2),
        "the policy unlearns", STEP, actionable=True),
    CollapseSignal("accuracy_fall", Falls("accuracy/train", sigmas=3.2, share=0.3),
        "the policy unlearns", STEP, actionable=True),
    CollapseSignal("held_out_fall", Falls("eval/accuracy", sigmas=2.0, share=0.12, over=1),
        "what is learned no longer generalizes to held-out rows", STEP, actionable=True),
    CollapseSignal("format_fall", Falls("reward/format", sigmas=3.2, share=0.15),
        "completions lose the required format", STEP + ", or raise the format reward's weight",
        actionable=True),
    CollapseSignal("entropy_collapse", Jumps("policy/entropy", deviations=4.0, factor=4.0, up=False),
        "the policy repeats itself and no longer explores",
        "add the regularizer entropy_bonus or raise rollout.temperature", reward_fall=0.5),
    CollapseSignal("ratio_extreme", Above("policy/ratio_max", 200.0, over=2),
        "single tokens became far more likely than when they were sampled", FEWER),
    CollapseSignal("clip_high", Above("policy/clip_fraction", 0.3, over=3),
        "most of the later inner epochs are clipped away", FEWER),
    CollapseSignal("gradient_jump", Jumps("optimizer/grad_norm", deviations=4.0, factor=4.0),
        "the loss has become steep", "lower training.learning_rate or training.max_grad_norm",
        reward_fall=0.5),
    CollapseSignal("length_rise", Jumps("completion/length_mean", deviations=5.0, factor=1.5),
        "completions ramble", "add the shaping overlong_penalty or lower training.learning_rate",
        reward_fall=1.5),
    CollapseSignal("length_fall", Jumps("completion/length_mean", deviations=5.0, factor=1.5, up=False),
        "completions shrink to the minimum that the reward accepts", "inspect the rollouts and the rewards",
        reward_fall=1.0),
    CollapseSignal("truncated", Above("completion/truncated", 0.3, over=3),
        "completions are cut before they end", "raise rollout.max_new_tokens or add overlong_penalty",
        reward_fall=1.5),
    CollapseSignal("engine_drift", Rises("rollout/logprob_difference_mean", 5.0, least=1e-4),
        "vLLM misses new weights or part of them, or the policy moves to where rounding counts",
        "compare vLLM's weights with the policy's and lower rollout.vllm.max_difference, or set "
        "rollout.vllm.correction"),
    CollapseSignal("no_signal", Above("groups/no_signal", 0.8, over=4),
        "all completions of most prompts fail", "use easier prompts or a lower learning rate",
        reward_fall=1.5),
)
# fmt: on


def select_signals(ignore: Sequence[str] = ()) -> list[CollapseSignal]:
    """Return all signals except the ignored ones.

    Raises:
        UserError: an ignored signal does not exist.
    """
    names = [signal.name for signal in SIGNALS]
    for name in ignore:
        if name not in names:
            raise UserError(f"guard.ignore: unknown signal {name!r}; known signals: {', '.join(names)}")
    return [signal for signal in SIGNALS if signal.name not in ignore]
