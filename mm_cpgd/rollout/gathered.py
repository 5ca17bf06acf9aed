"""Local rollout engine for sharded weights: it samples from a whole copy that exists only meanwhile."""

from __future__ import annotations

from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.sharding.fsdp2 import GatheredPolicy
from mm_cpgd.rollout.local import LocalEngine


class GatheredEngine(LocalEngine):
    """Samples on every process from the gathered weights.

    Args:
        gathered: gathers them.
        batch_prompts: prompts decoded in one batch.
        report_kept: see ``LocalEngine``.
        held_bytes: likewise.
    """

    def __init__(
        self,
        gathered: GatheredPolicy,
        batch_prompts: int = 32,
        *,
        report_kept: bool = True,
        held_bytes: int | None = None,
    ) -> None:
        super().__init__(gathered.policy, batch_prompts, report_kept=report_kept, held_bytes=held_bytes)
        self.gathered = gathered

    def load_weights(self, policy: Policy) -> None:
        """Gather the policy's present weights; called on all processes."""
        self.policy = self.gathered.gather()

    def release(self) -> None:
        """Free the gathered weights."""
        self.gathered.release()
