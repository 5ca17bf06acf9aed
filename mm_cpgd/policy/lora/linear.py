"""Linear layers with an adapter, whose second product is accumulated onto the layer's output."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear


def accumulate(model: nn.Module) -> None:
    """Turn peft's adapted linear layers into ``AccumulatingLinear``; names and weights do not change."""
    for module in model.modules():
        if type(module) is Linear and not module.fan_in_fan_out:
            module.__class__ = AccumulatingLinear


class AccumulatingLinear(Linear):
    """W·x + s·B·A·x with the second product accumulated onto the first.

    peft computes B·A·x, its multiple and the sum one after the other, and casts x to the adapter's float32
    before autocast casts it back: seven passes over the output in memory in place of one.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See peft; anything but one plain adapter is left to it."""
        name = self._only_adapter(x) if not args and not kwargs else None
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Tensor = self.get_base_layer()(x)
        down, up = self._weights(name)
        low = linear(x, down)
        # By hand: autocast leaves operations in place alone.
        factors = low.view(-1, low.shape[-1]).to(base.dtype), up.t().to(base.dtype)
        flat = base.view(-1, base.shape[-1])
        # With gradients into a copy: selective checkpointing keeps what the layer has returned.
        add = flat.addmm if torch.is_grad_enabled() else flat.addmm_
        return add(*factors, alpha=self.scaling[name]).view(base.shape)

    def _weights(self, name: str) -> tuple[Tensor, Tensor]:
        """Return A (r, in) and B (out, r)."""
        down: Any = self.lora_A[name]
        up: Any = self.lora_B[name]
        return down.weight, up.weight

    def _only_adapter(self, x: Tensor) -> str | None:
        """Return the name of the adapter, None unless it is the only one, plain, and not switched off."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        (name,) = self.active_adapters
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias.get(name):
            return None
        if not isinstance(self.lora_dropout[name], nn.Identity) and self.lora_dropout[name].p:
            return None
        same = x.dtype == self._weights(str(name))[0].dtype
        return str(name) if same or torch.is_autocast_enabled(x.device.type) else None
