"""Changed pictures of an iteration's prompts, and the rows whose dependence on the picture is measured."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mm_cpgd.algorithms.inputs.blind import BlindNeeds
from mm_cpgd.algorithms.methods.perception import visual_dependence
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.visual.changed import PictureChange, PixelScale, UnknownPixels, changed_prompt
from mm_cpgd.training.experience import Experience

# Prompts, with all their completions, that ``policy/visual_kl`` is measured on.
PROBE_PROMPTS = 4
# Log-probabilities (n, T) of an experience's rows of the given mini-batches, by the present policy.
LogProbs = Callable[[Experience, Iterable[int]], Tensor]


class BlindPictures:
    """Changes the pictures of prompts; what is drawn depends on the seed, the iteration and the row alone.

    Args:
        accelerator: the run's accelerator.
        policy: its processor tells the scale of pixels.
        change: what is done to the pictures.
        seed: of the run.
        every: iterations between measurements of ``policy/visual_kl``; 0: none.
    """

    def __init__(
        self, accelerator: Accelerator, policy: Policy, change: PictureChange, seed: int, every: int = 0
    ) -> None:
        self.accelerator = accelerator
        self.policy = policy
        self.change = change
        self.seed = seed
        self.every = every
        self._seconds: dict[int, float] = {}

    def prepare(self, experience: Experience, iteration: int, needs: BlindNeeds, logprobs: LogProbs) -> None:
        """Compute what the objective compares with behind changed pictures; nothing if no part does."""
        fixed = needs.fixed and experience.blind_logprobs is None
        live = needs.gradient and experience.blind_prompts is None
        if not (fixed or live):
            return
        started = time.perf_counter()
        changed = self.prompts(experience, iteration)
        if fixed:
            behind = replace(experience, prompts=changed)
            experience.blind_logprobs = logprobs(behind, range(len(experience.lengths)))
        if live:
            experience.blind_prompts = changed
        self._seconds = {iteration: time.perf_counter() - started}

    def metrics(
        self, experience: Experience, iteration: int, needs: BlindNeeds, logprobs: LogProbs
    ) -> dict[str, float]:
        """Return ``policy/visual_kl`` of a few prompts, if due and not the objective's own, and seconds."""
        if needs.compares:
            seconds = self._seconds.pop(iteration, None)
            return {} if seconds is None else {"seconds/blind": seconds}
        if not self.every or (iteration - 1) % self.every:
            return {}
        started = time.perf_counter()
        chosen = self.probe_rows(experience, iteration)
        if chosen is None:
            return {}
        changed = self._changed_or_none(experience, iteration, chosen)
        if changed is None:
            return {}
        few = replace(experience, mini_batch=torch.where(chosen, 0, -1))
        behind = replace(few, prompts=changed)
        seen, blind = logprobs(few, [0]), logprobs(behind, [0])
        own = experience.sampled_mask & chosen.unsqueeze(1)
        found = visual_dependence(seen[own], blind[own]).double()
        total = torch.tensor([[float(found.sum()), float(len(found))]], device=self.accelerator.device)
        value, count = self.accelerator.gather(total).sum(0).tolist()
        return {"policy/visual_kl": value / max(count, 1), "seconds/blind": time.perf_counter() - started}

    def _changed_or_none(
        self, experience: Experience, iteration: int, chosen: Tensor
    ) -> list[EncodedPrompt] | None:
        """Return ``prompts``; None, from now on, where pixels of any process are in an unknown layout.

        The metric is measured by default: what it cannot measure must not end a run.
        """
        changed, reason = None, ""
        try:
            changed = self.prompts(experience, iteration, chosen)
        except UnknownPixels as error:
            reason = str(error)
        # A process whose rows have no pictures does not see the layout.
        reasons = [one for one in gather_object([reason]) if one]
        if not reasons:
            return changed
        self.every = 0
        if self.accelerator.is_main_process:
            warnings.warn(f"policy/visual_kl is not measured: {reasons[0]}", stacklevel=2)
        return None

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

    def probe_rows(self, experience: Experience, iteration: int, most: int = PROBE_PROMPTS) -> Tensor | None:
        """Return which rows (n,) are of the few prompts with a picture that the iteration's draw chose.

        The draw is over the prompts of all processes. None: none of them has a picture.
        """
        used = set(experience.prompt_of[experience.sampled_mask.any(1)].tolist())
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


def completion_numbers(experience: Experience, accelerator: Accelerator) -> Tensor:
    """Return for each token the number of its completion (n, T), distinct over all processes."""
    counts = accelerator.gather(torch.tensor([len(experience)], device=accelerator.device)).tolist()
    first = sum(counts[: accelerator.process_index])
    numbers = torch.arange(first, first + len(experience), dtype=torch.float32)
    return numbers.unsqueeze(1).expand(experience.mask.shape)
