"""Changed pictures of an iteration's prompts, and the rows whose dependence on the picture is measured."""

from __future__ import annotations

import random

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.visual.changed import PictureChange, PixelScale, changed_prompt
from mm_cpgd.training.experience import Experience

# Prompts, with all their completions, that ``policy/visual_kl`` is measured on.
PROBE_PROMPTS = 4


class BlindPictures:
    """Changes the pictures of prompts; what is drawn depends on the seed, the iteration and the row alone.

    Args:
        policy: its processor tells the scale of pixels.
        change: what is done to the pictures.
        seed: of the run.
    """

    def __init__(self, policy: Policy, change: PictureChange, seed: int) -> None:
        self.policy = policy
        self.change = change
        self.seed = seed

    def prompts(
        self, experience: Experience, iteration: int, chosen: Tensor | None = None
    ) -> list[EncodedPrompt]:
        """Return the experience's prompts behind changed pictures.

        Args:
            experience: of this process.
            iteration: in which they are learned from.
            chosen: (n,) bool, rows whose prompts are needed; the others' stay as they are. None: all.
        """
        scale = PixelScale.of(self.policy.processor, self.policy.model)
        wanted = set(experience.prompt_of[chosen].tolist()) if chosen is not None else None
        pairs = zip(experience.prompts, self._seeds(experience, iteration), strict=True)
        return [
            changed_prompt(prompt, self.change, scale, seed) if wanted is None or number in wanted else prompt
            for number, (prompt, seed) in enumerate(pairs)
        ]

    def probe_rows(
        self, experience: Experience, iteration: int, accelerator: Accelerator, most: int = PROBE_PROMPTS
    ) -> Tensor | None:
        """Return which rows (n,) are of the few prompts with a picture that the iteration's draw chose.

        The draw is over the prompts of all processes. None: none of them has a picture.
        """
        used = set(experience.prompt_of.tolist())
        keys = {
            number: random.Random(f"{seed}/probe").random()
            for number, seed in enumerate(self._seeds(experience, iteration))
            if number in used and experience.prompts[number].vision
        }
        everywhere = sorted(gather_object(list(keys.values())))
        if not everywhere:
            return None
        limit = everywhere[min(most, len(everywhere)) - 1]
        mine = torch.tensor([number for number, key in keys.items() if key <= limit], dtype=torch.long)
        return torch.isin(experience.prompt_of, mine)

    def _seeds(self, experience: Experience, iteration: int) -> list[str]:
        # A process without rows has a stand-in's prompt, which no example is.
        known = [*experience.examples, *[-1] * len(experience.prompts)][: len(experience.prompts)]
        return [f"{self.seed}/{iteration}/{index}" for index in known]
