"""Processes, GPUs and number formats that a plan's memory is estimated for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mm_cpgd.config.schema import PolicyConfig, RunConfig, TrainingConfig
from mm_cpgd.distributed import Strategy, choose_strategy
from mm_cpgd.errors import UserError
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.training.optimizer.build import is_compact
from mm_cpgd.training.optimizer.moments import BLOCK

UNITS = {"": 2**30, "gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6}
FLOAT = 4
HALF = 2


@dataclass(frozen=True)
class Machines:
    """What the run is planned for.

    Attributes:
        processes: of the whole run, one on each GPU.
        nodes: machines.
        gpu_memory: bytes of each GPU; None: not known.
        on_gpu: whether the processes run on GPUs.
    """

    processes: int = 1
    nodes: int = 1
    gpu_memory: int | None = None
    on_gpu: bool = False

    @property
    def per_node(self) -> int:
        """Processes of one machine."""
        return self.processes // self.nodes


@dataclass(frozen=True)
class Setting:
    """How a run lays out its memory.

    Attributes:
        machines: what it is planned for.
        strategy: the strategy of the config or of ``accelerate launch``.
        weight: bytes per weight, adapters excepted.
        half: whether it computes in bfloat16.
        moment: bytes per value of AdamW's moments; None: as many as of the weight.
        moments_offloaded: whether whole weights' moments are in CPU memory.
    """

    machines: Machines
    strategy: Strategy
    weight: int
    half: bool
    moment: float | None = None
    moments_offloaded: bool = False

    @property
    def sharded(self) -> bool:
        """Whether weights are in shards."""
        return self.strategy.sharded and self.machines.processes > 1

    @property
    def offloaded(self) -> bool:
        """Whether shards, gradients and optimizer state are in CPU memory."""
        return self.sharded and self.strategy.cpu_offload

    @property
    def parts(self) -> int:
        """Number of processes that a sharded tensor is divided among."""
        return self.machines.processes if self.sharded else 1

    @property
    def sent_copies(self) -> int:
        """Copies of what processes sum or gather: on CPUs gloo makes one of its own, NCCL none."""
        return 1 if self.machines.on_gpu else 2

    @property
    def compute(self) -> int:
        """Bytes of values that matrix products take and give."""
        return HALF if self.half else self.weight

    @property
    def stream(self) -> int:
        """Bytes of hidden states between layers: FSDP2 casts the weights, autocast only products."""
        return self.compute if self.sharded else self.weight


def plan_machines(
    environment: Mapping[str, str],
    processes: int | None = None,
    nodes: int | None = None,
    gpu_memory: str | None = None,
) -> Machines:
    """Return what a run is planned for: as given, else the present launch and the GPU that is here.

    Args:
        environment: the environment variables, as a launcher sets them.
        processes: of the whole run; None: those of the launch, else one.
        nodes: machines; None: those of the launch, else one.
        gpu_memory: of each GPU, such as ``80GiB``; None: that of the GPU that is here, if there is one.

    Raises:
        UserError: the numbers contradict each other, or the text is no size.
    """
    launched = processes is None
    count = int(environment.get("WORLD_SIZE", "1")) if processes is None else processes
    if nodes is None:
        local = int(environment.get("LOCAL_WORLD_SIZE", str(count))) if launched else count
        nodes = max(1, count // max(1, local))
    if count < 1 or nodes < 1 or count % nodes:
        raise UserError(
            f"--processes {count} cannot be divided among --nodes {nodes}; every machine runs equally many, "
            "one for each of its GPUs"
        )
    size = read_size(gpu_memory) if gpu_memory else _gpu_here()
    return Machines(count, nodes, size, on_gpu=size is not None or torch.cuda.is_available())


def read_size(text: str) -> int:
    """Return the number of bytes of a text such as ``80GiB``, ``24 GB`` or ``80`` (GiB).

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in UNITS or float(found[1]) <= 0:
        raise UserError(f"--gpu-memory {text!r} is no size; write for instance 80GiB, 24GB or 80 (GiB)")
    return int(float(found[1]) * UNITS[found[2].lower()])


def plan_setting(config: RunConfig, size: ModelSize, machines: Machines) -> Setting:
    """Return how the config lays out its memory on these machines.

    Raises:
        UserError: as ``choose_strategy``.
    """
    wanted = config.training.mixed_precision
    half = machines.on_gpu if wanted == "auto" else wanted == "bf16"
    strategy = choose_strategy(config.distributed, os.environ)
    training = config.training
    return Setting(
        machines,
        strategy,
        _weight_bytes(config.policy, size, machines),
        half,
        _moment_bytes(training),
        training.offload_moments,
    )


def _moment_bytes(training: TrainingConfig) -> float | None:
    if not is_compact(training):
        return None
    return 1 + FLOAT / BLOCK if training.optimizer == "adamw_8bit" else FLOAT


def _weight_bytes(policy: PolicyConfig, size: ModelSize, machines: Machines) -> int:
    """Return the bytes per weight as the run loads them (``training_dtype``)."""
    if policy.dtype != "auto":
        return HALF if policy.dtype == "bfloat16" else FLOAT
    return size.stored if policy.lora and machines.on_gpu else FLOAT


def _gpu_here() -> int | None:
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)
