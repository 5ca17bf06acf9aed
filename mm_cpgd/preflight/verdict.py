"""Verdict on a plan's memory: whether it fits, where its peak is, and what would lower it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mm_cpgd.config.schema import LoraConfig, RunConfig
from mm_cpgd.preflight.memory import estimate_memory, total_of
from mm_cpgd.preflight.memory_item import PHASES, MemoryItem
from mm_cpgd.preflight.memory_rollout import vllm_cache_bytes, vllm_weight_bytes
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Setting, plan_setting

# Share of a GPU that libraries and fragmentation may take.
RESERVE = 0.1
# A change is worth a line if it lowers the peak by this share.
WORTHWHILE = 0.03


@dataclass(frozen=True)
class Case:
    """What a plan is made for.

    Attributes:
        config: the run's config.
        size: size of its model.
        setting: layout of its memory.
        prompt_tokens: length of the longest prompt.
        reference: whether the objective needs a reference policy.
        adapted: returns the model's size with adapters.
    """

    config: RunConfig
    size: ModelSize
    setting: Setting
    prompt_tokens: int
    reference: bool
    adapted: Callable[[LoraConfig], ModelSize]

    def items(self) -> list[MemoryItem]:
        """Return the items of its memory."""
        return estimate_memory(
            self.config, self.size, self.setting, self.prompt_tokens, reference=self.reference
        )

    def peak(self) -> int:
        """Return its peak in bytes."""
        return total_of(self.items()).peak

    def changed(self, section: str, **values: object) -> Case:
        """Return the same case with other values in a section of the config."""
        part = getattr(self.config, section).model_copy(update=values)
        config = self.config.model_copy(update={section: part})
        return replace(self, config=config, setting=plan_setting(config, self.size, self.setting.machines))


@dataclass(frozen=True)
class Verdict:
    """What a plan's memory comes to.

    Attributes:
        fits: whether it fits with a reserve; None: the GPU's memory is not known.
        lines: the verdict in words.
    """

    fits: bool | None
    lines: tuple[str, ...]


def judge(case: Case, text_of: Callable[[int], str]) -> Verdict:
    """Return the verdict on a case.

    Args:
        case: what is planned.
        text_of: writes a number of bytes.
    """
    memory = case.setting.machines.gpu_memory
    peak = case.peak()
    where = _where(case.items(), text_of)
    advice = tuple(_advice(case, peak, text_of))
    if memory is None:
        head = f"Peak about {text_of(peak)} on each process; allow a tenth more. With --gpu-memory, the plan"
        return Verdict(None, (f"{head} says whether it fits.", f"The peak {where}.", *advice))
    both = f"{text_of(peak)} of {text_of(memory)} on each GPU"
    obstacles = tuple(_vllm_obstacles(case, text_of))
    if obstacles:
        return Verdict(False, (f"Does not fit: vLLM cannot start. The run would take {both}.", *obstacles))
    if peak <= memory * (1 - RESERVE):
        return Verdict(True, (f"Fits: {both}; the peak {where}.",))
    if peak <= memory:
        head = f"Does not fit safely: {both} leaves less than a tenth for libraries and fragmentation"
    else:
        head = f"Does not fit: {both}"
    return Verdict(False, (f"{head}; the peak {where}.", *advice))


def _where(items: Sequence[MemoryItem], text_of: Callable[[int], str]) -> str:
    """Return in which phase the peak is, and its largest part."""
    phase = total_of(items).peak_phase
    largest = max(items, key=lambda item: getattr(item, phase))
    size = text_of(getattr(largest, phase))
    return f"is {PHASES[phase]}, and the largest part of it {largest.name}: {size}"


def _vllm_obstacles(case: Case, text_of: Callable[[int], str]) -> Iterator[str]:
    """Yield why a colocated vLLM would not start."""
    rollout, memory = case.config.rollout, case.setting.machines.gpu_memory
    if rollout.engine != "vllm" or rollout.vllm.mode != "colocated" or memory is None:
        return
    weights = vllm_weight_bytes(case.config, case.size)
    needed = weights + vllm_cache_bytes(case.config, case.size, case.prompt_tokens)
    share = int(rollout.vllm.memory_share * memory)
    if needed > share:
        yield (
            f"vLLM gets {text_of(share)} (rollout.vllm.memory_share={rollout.vllm.memory_share:g}) and needs "
            f"{text_of(needed)} for its weights ({text_of(weights)}) and one longest completion; raise the "
            f"share to {needed / memory / (1 - RESERVE):.2f} at least, or rollout.vllm.tensor_parallel"
        )


def _advice(case: Case, peak: int, text_of: Callable[[int], str]) -> Iterator[str]:
    """Yield what would lower the peak, the largest gain first."""
    found = [(changed.peak(), text) for text, changed in _changes(case)]
    useful = [(lower, text) for lower, text in sorted(found) if lower < peak * (1 - WORTHWHILE)]
    for lower, text in useful:
        yield f"  with {text}: {text_of(lower)}"
    if not useful:
        yield "  no single setting lowers it: several phases or parts are as large"


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    """Yield changes of the config and the launch that may lower the peak."""
    config, setting = case.config, case.setting
    policy, distributed = config.policy, config.distributed
    if setting.machines.processes > 1 and not setting.sharded:
        yield "distributed.strategy=fsdp2", case.changed("distributed", strategy="fsdp2")
    if setting.sharded:
        machines = setting.machines
        machines = replace(machines, processes=2 * machines.processes, nodes=2 * machines.nodes)
        yield (
            f"twice the GPUs ({machines.processes})",
            replace(case, setting=replace(setting, machines=machines)),
        )
        if not distributed.reshard_after_forward:
            yield (
                "distributed.reshard_after_forward=true",
                case.changed("distributed", reshard_after_forward=True),
            )
        if not distributed.cpu_offload:
            yield "distributed.cpu_offload=true (slower)", case.changed("distributed", cpu_offload=True)
    if policy.gradient_checkpointing is not True:
        yield "policy.gradient_checkpointing=true", case.changed("policy", gradient_checkpointing=True)
    if not policy.lora:
        adapted = replace(case, size=case.adapted(LoraConfig()))
        yield "policy.lora={rank: 16}", adapted.changed("policy", lora=LoraConfig(), freeze_vision=True)
    if not setting.sharded and not config.training.offload_moments:
        yield "training.offload_moments=true (slower)", case.changed("training", offload_moments=True)
    half = max(1, config.training.tokens_of_pass(on_gpu=setting.machines.on_gpu) // 2)
    yield f"training.micro_batch_tokens={half}", case.changed("training", micro_batch_tokens=half)
    chunk = max(1, config.training.logprob_chunk // 2)
    yield f"training.logprob_chunk={chunk}", case.changed("training", logprob_chunk=chunk)
    if config.training.mixed_precision == "no" and setting.machines.on_gpu:
        yield "training.mixed_precision=bf16", case.changed("training", mixed_precision="bf16")
    if config.rollout.engine == "local" and config.rollout.batch_prompts > 1:
        prompts = config.rollout.batch_prompts // 2
        yield f"rollout.batch_prompts={prompts}", case.changed("rollout", batch_prompts=prompts)
    if config.rollout.engine == "vllm" and not config.rollout.vllm.sleep:
        vllm = config.rollout.vllm.model_copy(update={"sleep": True})
        yield "rollout.vllm.sleep=true", case.changed("rollout", vllm=vllm)
