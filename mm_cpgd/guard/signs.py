"""The signs of a collapse: how each is seen, what it probably means, and which knob to turn."""

from __future__ import annotations

from dataclasses import dataclass

from mm_cpgd.guard.trend_tests import Above, Falls, Finding, History, Jumps, Rises, Test, fall_of

REWARD = "reward/mean"


@dataclass(frozen=True)
class Sign:
    """One thing to notice.

    Attributes:
        name: in ``metrics.jsonl`` (``guard/NAME``) and in ``guard.ignore``.
        test: of one metric against its history.
        cause: what is probably wrong.
        knob: what to turn.
        acts: whether rollback and stop heed it; else it only warns.
        fall: the reward must at the same time be so many standard deviations of its noise below its recent
            best. 0: no matter what the reward does.
    """

    name: str
    test: Test
    cause: str
    knob: str
    acts: bool = False
    fall: float = 0.0

    def find(self, history: History) -> Finding | None:
        """Judge the newest row; strength 1 is the threshold."""
        found = self.test(history)
        if found is None or not self.fall or found.strength <= 0:
            return found
        fall = fall_of(history, REWARD, over=2)
        if fall is None:
            return None
        return Finding(min(found.strength, fall.sigmas / self.fall), f"{found.text}, while {fall.text}")


STEP = "lower training.learning_rate or training.inner_epochs, or raise the policy drift's alpha"
FEWER = "lower training.inner_epochs or training.learning_rate"

# fmt: off
SIGNS: tuple[Sign, ...] = (
    Sign("diverged", Above("guard/diverged", 1, over=1),
         "steps overflow", "lower training.learning_rate or training.max_grad_norm", acts=True),
    Sign("not_finite", Above("optimizer/skipped", 1, over=2),
         "steps overflow", "lower training.learning_rate or training.max_grad_norm", acts=True),
    Sign("drift_extreme", Above("policy/drift", 1.0, over=1),
         "one iteration takes the policy far from the one that sampled", STEP, acts=True),
    Sign("drift_high", Above("policy/drift", 0.065, over=2),
         "the policy leaves the one that sampled again and again", STEP, acts=True),
    Sign("entropy_rise", Rises("policy/entropy", 3.0), "the policy loses what it knew", STEP,
         acts=True, fall=2.5),
    Sign("reward_fall", Falls(REWARD, sigmas=3.2, share=0.2),
         "the policy unlearns", STEP, acts=True),
    Sign("accuracy_fall", Falls("accuracy/train", sigmas=3.2, share=0.3),
         "the policy unlearns", STEP, acts=True),
    Sign("held_out_fall", Falls("eval/accuracy", sigmas=2.0, share=0.12, over=1),
         "what is learned no longer carries over to held-out rows", STEP, acts=True),
    Sign("format_fall", Falls("reward/format", sigmas=3.2, share=0.15),
         "answers lose their form", STEP + ", or raise the format reward's weight", acts=True),
    Sign("entropy_collapse", Jumps("policy/entropy", deviations=4.0, factor=4.0, up=False),
         "the policy repeats itself and explores no more",
         "add the regularizer entropy_bonus or raise rollout.temperature", fall=0.5),
    Sign("ratio_extreme", Above("policy/ratio_max", 200.0, over=2),
         "single tokens became far likelier than when they were sampled", FEWER),
    Sign("clip_high", Above("policy/clip_fraction", 0.3, over=3),
         "most of the later passes are clipped away", FEWER),
    Sign("gradient_jump", Jumps("optimizer/grad_norm", deviations=4.0, factor=4.0),
         "the loss has become steep", "lower training.learning_rate or training.max_grad_norm", fall=0.5),
    Sign("length_rise", Jumps("completion/length_mean", deviations=5.0, factor=1.5),
         "completions ramble", "add the shaping overlong_penalty or lower training.learning_rate", fall=1.5),
    Sign("length_fall", Jumps("completion/length_mean", deviations=5.0, factor=1.5, up=False),
         "completions shrink to what the reward lets through", "look at the rollouts, and at the rewards",
         fall=1.0),
    Sign("truncated", Above("completion/truncated", 0.3, over=3),
         "completions are cut before they end", "raise rollout.max_new_tokens or add overlong_penalty",
         fall=1.5),
    Sign("no_signal", Above("groups/no_signal", 0.8, over=4),
         "all completions of most prompts fail alike", "take easier prompts or a calmer start", fall=1.5),
)
# fmt: on
