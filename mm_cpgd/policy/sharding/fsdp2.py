"""A policy whose weights are sharded over the processes of a run by FSDP2.

Every decoder layer, and every block of a trained vision tower, is a unit: its weights are gathered for its
own forward and backward pass. Embeddings, final norm and head form the root unit, which stays gathered in
between. A frozen vision tower is whole on every process: how often it runs differs between processes, and a
unit has to be gathered by all of them at the same time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from mm_cpgd.errors import UserError
from mm_cpgd.policy.families import decoder_layers, vision_modules, vision_parameters
from mm_cpgd.policy.lora.layers import is_quantized
from mm_cpgd.policy.policy import Policy
from mm_cpgd.policy.sharding.tensors import full_value, is_sharded, local_value, offset_of, replace_tensors
from mm_cpgd.policy.vision import VisionFeatureCache

META = torch.device("meta")


@dataclass(frozen=True)
class ShardSettings:
    """How weights are sharded.

    Attributes:
        cpu_offload: keep shards, gradients and optimizer state in CPU memory.
        reshard_after_forward: free a unit's gathered weights between its forward and backward pass.
        dtype: number format of the shards; None: as loaded. Adapters keep theirs.
        compute_dtype: number format of gathered weights; None: that of the shards. Gradients are summed over
            processes in float32.
    """

    cpu_offload: bool = False
    reshard_after_forward: bool = True
    dtype: torch.dtype | None = None
    compute_dtype: torch.dtype | None = None


def shard_policy(
    policy: Policy, settings: ShardSettings, device: torch.device, *, reference: bool
) -> GatheredPolicy:
    """Shard a policy in place; called on all processes.

    Args:
        policy: loaded on the CPU of the main process, with meta tensors on the others.
        settings: see there.
        device: the process's device.
        reference: whether to keep the present weights as reference policy, sharded likewise.

    Returns:
        The same policy with whole weights, to sample from.

    Raises:
        UserError: the family's vision tower cannot be trained in shards, or weights are quantized.
    """
    model, tower = policy.model, vision_modules(policy.model)
    if tower and not policy.vision_cache.frozen and not policy.shared_prefix:
        raise UserError(
            "distributed.strategy=fsdp2 with policy.freeze_vision=false or policy.lora.vision=true needs a "
            "family with shared prefixes and rollout.shared_prefix=true: a process without an image would "
            "not run the vision tower, and the others would wait for it; freeze the vision tower"
        )
    if is_quantized(model):
        raise UserError(
            "policy.lora.quantize keeps weights packed, which cannot be sharded; set "
            "distributed.strategy=ddp, or leave it out"
        )
    held = _take_weights(model, settings.dtype)
    copies = [_skeleton(model) for _ in range(2 if reference and policy.adapter is None else 1)]
    _shard(policy, settings, device)
    for name, target in _tensors(model).items():
        _receive(target, held.pop(name, None), device)
    if reference and policy.adapter is not None:
        policy.keep_reference()
    if len(copies) > 1:
        policy.__dict__["reference"] = _sharded_reference(policy, copies[1], settings, device)
    return GatheredPolicy(policy, copies[0], settings.compute_dtype, device)


def reshard(policy: nn.Module) -> None:
    """Free the root unit's gathered weights, which a forward pass without a backward pass leaves behind."""
    if isinstance(policy, FSDPModule):
        policy.reshard()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; one that several modules share is there once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _take_weights(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors of the main process by name, and leave meta tensors in the model of all processes.

    Raises:
        UserError: the model of this process is another one.
    """
    held = _tensors(model)
    formats = [{name: (list(value.shape), value.dtype) for name, value in held.items()}]
    broadcast_object_list(formats)
    empty: dict[int, Tensor] = {}
    for name, (shape, stored) in formats[0].items():
        if name not in held or list(held[name].shape) != shape:
            raise UserError(
                f"policy.model: the main process has {name} of shape {shape}, and another process does not; "
                "give all machines the same model"
            )
        value = held[name]
        # Frozen buffers, such as rotary frequencies, keep their precision.
        wanted = dtype if dtype and isinstance(value, nn.Parameter) and ".lora_" not in name else stored
        meta = torch.empty(shape, dtype=wanted, device=META)
        empty[id(value)] = (
            nn.Parameter(meta, value.requires_grad) if isinstance(value, nn.Parameter) else meta
        )
    replace_tensors(model, empty)
    return {name: value.detach() for name, value in held.items() if not value.is_meta}


def _skeleton(model: Any) -> Any:
    """Return a frozen copy of a model of meta tensors."""
    return copy.deepcopy(model).requires_grad_(False)


def _shard(policy: Policy, settings: ShardSettings, device: torch.device) -> None:
    """Apply FSDP2 to a policy of meta tensors, and allocate what this process holds."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    precision = MixedPrecisionPolicy(
        param_dtype=settings.compute_dtype, reduce_dtype=torch.float32 if settings.compute_dtype else None
    )
    # Pinned memory is for copies to a GPU.
    offload = CPUOffloadPolicy(pin_memory=device.type != "cpu") if settings.cpu_offload else OffloadPolicy()
    make: Any = partial(fully_shard, mesh=mesh, mp_policy=precision, offload_policy=offload)
    model, tower = policy.model, vision_modules(policy.model)
    whole = [*model.buffers()]
    if policy.vision_cache.frozen:
        whole += vision_parameters(model)
    replace_tensors(model, {id(value): _allocated(value, device) for value in whole})
    blocks = [] if policy.vision_cache.frozen else _blocks(tower)
    for unit in [*blocks, *decoder_layers(model)]:
        _checkpoint_inside(unit)
        make(unit, reshard_after_forward=settings.reshard_after_forward)
    ignored = {parameter for parameter in model.parameters() if not parameter.is_meta}
    # Casting the policy's inputs would copy the prompts, and rows share a prompt by being the same object.
    uncast = replace(precision, cast_forward_inputs=False)
    make(policy, reshard_after_forward=False, ignored_params=ignored, mp_policy=uncast)
    register_fsdp_forward_method(policy, "kept_tokens")
    register_fsdp_forward_method(policy, "kept_mass")
    _allocate_shards(policy, torch.device("cpu") if settings.cpu_offload else device)
    policy.vision_cache = VisionFeatureCache(model)


def _allocate_shards(policy: Policy, device: torch.device) -> None:
    """Give memory to the shards; FSDP2 notices that they are new, but not which modules share one."""
    places = [
        (module, name, value)
        for module in policy.modules()
        for name, value in module._parameters.items()
        if value is not None
    ]
    policy._apply(lambda value: torch.empty_like(value, device=device) if value.is_meta else value)
    first: dict[int, Any] = {}
    for module, name, before in places:
        module._parameters[name] = first.setdefault(id(before), module._parameters[name])


def _allocated(value: Tensor, device: torch.device) -> Tensor:
    empty = torch.empty_like(value, device=device)
    return nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty


def _blocks(tower: list[nn.Module]) -> list[nn.Module]:
    """Return the transformer blocks of a vision tower: its longest list of modules."""
    lists = [
        list(child) for module in tower for child in module.modules() if isinstance(child, nn.ModuleList)
    ]
    return max(lists, key=len, default=[])


def _checkpoint_inside(unit: Any) -> None:
    """Move a layer's activation checkpointing inside of its unit.

    Around it, the recomputation in the backward pass would gather the weights once more.
    """
    if not getattr(unit, "gradient_checkpointing", False):
        return
    unit.gradient_checkpointing = False
    plain = unit.forward

    def forward(*args: Any, **options: Any) -> Any:
        # A compiled layer checkpoints itself.
        if unit.training and torch.is_grad_enabled() and "packed" not in options:
            return unit._gradient_checkpointing_func(plain, *args, **options)
        return plain(*args, **options)

    unit.forward = forward


@torch.no_grad()
def _receive(target: Tensor, whole: Tensor | None, device: torch.device) -> None:
    """Send a tensor of the main process to all; each keeps its part."""
    if whole is None:
        sent = torch.empty(target.shape, dtype=target.dtype, device=device)
    else:
        sent = whole.to(device, target.dtype).contiguous()
    torch.distributed.broadcast(sent, 0)
    _keep_part(target, sent)


def _keep_part(target: Tensor, whole: Tensor) -> None:
    """Copy this process's part of a whole tensor into ``target``."""
    local = local_value(target)
    if is_sharded(target):
        start = offset_of(target)
        whole = whole[start : start + len(local)]
    local.copy_(whole)


def _sharded_reference(policy: Policy, model: Any, settings: ShardSettings, device: torch.device) -> Policy:
    """Return a policy of its own with the present weights."""
    reference = Policy(
        model, policy.processor, policy.encoder, None, policy.logprob_chunk, policy.shared_prefix
    ).eval()
    _shard(reference, settings, device)
    values = _tensors(policy.model)
    with torch.no_grad():
        for name, target in _tensors(model).items():
            if is_sharded(target):
                local_value(target).copy_(local_value(values[name]))
            else:
                target.copy_(full_value(values[name]))
    if policy.vision_cache.frozen:
        reference.vision_cache = policy.vision_cache
    return reference


class GatheredPolicy:
    """The policy with whole weights on every process, for as long as it samples.

    Args:
        policy: the sharded policy.
        model: a copy of its model, of meta tensors.
        dtype: number format of the whole weights; None: that of the shards.
        device: the process's device.
    """

    def __init__(self, policy: Policy, model: Any, dtype: torch.dtype | None, device: torch.device) -> None:
        self.policy = policy
        self.dtype = dtype
        self.device = device
        self.model = model
        self._empty = {name: value for name, value in _tensors(model).items() if value.is_meta}
        self._filled: dict[str, Tensor] = {}

    def gather(self) -> Policy:
        """Gather the present weights, tensor by tensor; called on all processes.

        A frozen vision tower, and what it has computed, is the sharded policy's.
        """
        self.release()
        self._filled = {name: self._whole(value) for name, value in self._values().items()}
        self._replace(self._empty, self._filled)
        gathered = Policy(
            self.model,
            self.policy.processor,
            self.policy.encoder,
            None,
            self.policy.logprob_chunk,
            self.policy.shared_prefix,
        ).eval()
        if self.policy.vision_cache.frozen:
            gathered.vision_cache = self.policy.vision_cache
        return gathered

    def release(self) -> None:
        """Free the whole weights."""
        self._replace(self._filled, self._empty)
        self._filled = {}

    def _values(self) -> dict[str, Tensor]:
        return {name: value for name, value in _tensors(self.policy.model).items() if name in self._empty}

    def _whole(self, value: Tensor) -> Tensor:
        if not is_sharded(value):
            return value
        whole = full_value(value).to(self.device, self.dtype or value.dtype)
        return nn.Parameter(whole, False)

    def _replace(self, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
        replace_tensors(self.model, {id(value): new[name] for name, value in old.items()})
