"""One item of a plan's memory, in bytes, in each phase of an iteration."""

from __future__ import annotations

from dataclasses import dataclass

# Phases as columns of the plan, and in words.
PHASES = {
    "rollout": "while sampling",
    "loss": "when log-probabilities and their gradient are computed, all activations still there",
    "layers": "in the backward pass through the layers",
    "step": "at the end of the backward pass and in the optimizer step",
}


@dataclass(frozen=True)
class MemoryItem:
    """Bytes of one item.

    Attributes:
        name: of what.
        rollout: while sampling.
        loss: when the forward pass is complete and the loss's gradient is computed, chunk by chunk.
        layers: in the backward pass, in the layer that comes first.
        step: when the last gradients are summed and the optimizer steps.
        how: how they are computed.
    """

    name: str
    rollout: int = 0
    loss: int = 0
    layers: int = 0
    step: int = 0
    how: str = ""

    @property
    def peak(self) -> int:
        """The largest of the phases."""
        return max(getattr(self, phase) for phase in PHASES)

    @property
    def peak_phase(self) -> str:
        """Name of the phase with the largest."""
        return max(PHASES, key=lambda phase: getattr(self, phase))


def always(name: str, count: int, how: str) -> MemoryItem:
    """Return an item that is there in all phases."""
    return MemoryItem(name, **dict.fromkeys(PHASES, count), how=how)
