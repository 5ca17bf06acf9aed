"""AdamW for little memory: 8-bit moments, moments in CPU memory, and stochastic rounding of bfloat16 weights.

The arithmetic is that of torch's AdamW in float32, whatever the format of weights and moments (Loshchilov and
Hutter, arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.training.optimizer.moments import FIRST, SECOND, new_moments, read, write

# Values that are updated at a time, a multiple of the block of 8-bit moments: a bound of temporary memory.
CHUNK = 1 << 24
# Of the seeds of rounding; a prime, so that no two steps of two tensors share one.
TENSORS = 1_000_003
DISCARDED_BITS = 16

Group = dict[str, Any]


class CompactAdamW(torch.optim.Optimizer):
    """AdamW that computes in float32 and stores less.

    The random numbers of rounding follow from the step and the tensor: they are the same on all processes and
    in a run that was resumed, and no generator of the run is used.

    Args:
        groups: parameter groups with ``lr`` and ``weight_decay``.
        betas: β₁ and β₂.
        eps: added to the denominators.
        eight_bit: store the moments of large tensors in 8 bits; otherwise in float32.
        stochastic: round weights of bfloat16 up or down with the probabilities whose mean is exact.
        offload: keep the moments in CPU memory.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        eight_bit: bool = False,
        stochastic: bool = False,
        offload: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.eight_bit = eight_bit
        self.rounds_at_random = stochastic
        self.offload = offload

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step with the gradients that there are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        every = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        wanted = [(number, *pair) for number, pair in enumerate(every) if pair[1].grad is not None]
        states = [self._started(parameter) for _, _, parameter in wanted]
        homes = [_tensors(state) for state in states]
        devices = [parameter.device for _, _, parameter in wanted]
        for (number, group, parameter), state, moments in zip(
            wanted, states, _fetched(homes, devices), strict=True
        ):
            self._update(number, group, parameter, float(state["step"]), moments)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state; unlike torch's optimizers, without casting moments to the weights' format."""
        super().load_state_dict(dict(state_dict))
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(saved, own, strict=True):
            if number not in state_dict["state"]:
                continue
            for key, value in state_dict["state"][number].items():
                kept = value.detach().clone() if isinstance(value, Tensor) else value
                self.state[parameter][key] = kept
            self._place(parameter)

    def _started(self, parameter: Tensor) -> dict[str, Any]:
        """Return the parameter's state with the step counted, made if there is none."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state.update(new_moments(parameter, self._allocator(parameter), eight_bit=self.eight_bit))
        self._place(parameter)
        state["step"] += 1
        return state

    def _allocator(self, parameter: Tensor) -> Callable[[tuple[int, ...], torch.dtype], Tensor]:
        home = torch.device("cpu") if self.offload else parameter.device
        # Pinned memory, so that copies run beside the computation.
        pinned = self.offload and parameter.device.type == "cuda"
        return lambda shape, dtype: torch.empty(shape, dtype=dtype, device=home, pin_memory=pinned)

    def _place(self, parameter: Tensor) -> None:
        """Move moments that a snapshot or another setting has left elsewhere."""
        state, empty = self.state[parameter], self._allocator(parameter)
        home = torch.device("cpu") if self.offload else parameter.device
        for key, value in _tensors(state).items():
            if value.device != home:
                state[key] = empty(tuple(value.shape), value.dtype).copy_(value)

    def _update(
        self, number: int, group: Group, parameter: Tensor, step: float, moments: dict[str, Tensor]
    ) -> None:
        stochastic = self.rounds_at_random and parameter.dtype == torch.bfloat16
        generator = torch.Generator(parameter.device).manual_seed(int(step) * TENSORS + number)
        assert parameter.grad is not None
        weights, gradient = parameter.view(-1), parameter.grad.reshape(-1)
        for start in range(0, len(weights), CHUNK):
            part = slice(start, min(start + CHUNK, len(weights)))
            first, second = (read(moments, name, part) for name in (FIRST, SECOND))
            values = weights[part].float()
            _adamw(values, gradient[part].float(), first, second, step, group)
            write(moments, FIRST, part, first)
            write(moments, SECOND, part, second)
            weights[part] = round_at_random(values, generator) if stochastic else values


def _adamw(
    weights: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: float, group: Group
) -> None:
    """Update weights and moments in place, all (n,) float32."""
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    weights.mul_(1 - rate * group["weight_decay"])
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    weights.addcdiv_(first, denominator, value=-rate / (1 - beta1**step))


def round_at_random(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 to bfloat16, up with a probability that is the distance from the lower neighbour.

    bfloat16 is the upper half of float32's bits; a random lower half that is added to them carries into the
    upper one with that probability.
    """
    noise = torch.randint(
        1 << DISCARDED_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    bits = (values.view(torch.int32) + noise) & -(1 << DISCARDED_BITS)
    return bits.view(torch.float32).to(torch.bfloat16)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and key != "step"}


def _fetched(homes: list[dict[str, Tensor]], devices: list[torch.device]) -> Iterator[dict[str, Tensor]]:
    """Yield moments on the devices of their parameters, one tensor's after the other; write changes back.

    From CPU memory the next tensor's are copied while those of the one before are in use.
    """
    if not homes or devices[0].type != "cuda" or homes[0][FIRST].device == devices[0]:
        yield from homes
        return
    inward, outward = torch.cuda.Stream(), torch.cuda.Stream()
    ahead = _copies(homes[0], devices[0], inward)
    for number, home in enumerate(homes):
        present = ahead
        torch.cuda.current_stream().wait_stream(inward)
        if number + 1 < len(homes):
            ahead = _copies(homes[number + 1], devices[number + 1], inward)
        yield present
        outward.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(outward):
            for key, value in present.items():
                home[key].copy_(value, non_blocking=True)
                value.record_stream(outward)
    outward.synchronize()


def _copies(home: dict[str, Tensor], device: torch.device, stream: torch.cuda.Stream) -> dict[str, Tensor]:
    with torch.cuda.stream(stream):
        found = {key: value.to(device, non_blocking=True) for key, value in home.items()}
    for value in found.values():
        value.record_stream(torch.cuda.current_stream())
    return found
