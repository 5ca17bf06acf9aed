"""Changed pictures as the config asks for them: in rollouts, and for parts that compare."""

from __future__ import annotations

from typing import Any

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy.visual.changed import PictureChange
from mm_cpgd.rollout.noisy import NoiseSchedule


def build_noise(config: RunConfig) -> NoiseSchedule | None:
    """Return the noise of rollouts that ``algorithm.noisy`` asks for.

    Raises:
        UserError: the completions cannot be sampled behind two pictures.
    """
    chosen, rollout = config.algorithm.noisy, config.rollout
    if chosen is None:
        return None
    obstacles = {
        "rollout.engine=vllm, which opens the pictures itself; use local": rollout.engine != "local",
        "rollout.environment, whose conversations begin with the clean picture": rollout.environment,
        f"rollout.completions={rollout.completions}, of which half see noise; take an even number": (
            rollout.completions % 2
        ),
        "algorithm.budget, which gives prompts odd numbers of completions": config.algorithm.budget,
        "rollout.top_p, top_k or min_p, which cut other tokens behind each picture; leave them out": (
            rollout.top_p < 1 or rollout.top_k > 0 or rollout.min_p > 0
        ),
    }
    if found := [text for text, present in obstacles.items() if present]:
        raise UserError(f"algorithm.noisy does not go together with {'; and with '.join(found)}")
    return NoiseSchedule(chosen.steps, chosen.middle, chosen.steepness, config.training.iterations)


def blind_options(config: RunConfig) -> dict[str, Any]:
    """Return the learner's options about changed pictures."""
    chosen = config.algorithm.blind
    change = PictureChange(chosen.picture, chosen.share, chosen.steps)
    return {"blind": change, "visual_kl_every": config.tracking.visual_kl_every}
