"""Memory that ``--dry-run`` plans against what a run really uses, phase by phase.

Builds a policy of the Qwen2.5-VL architecture with random weights, trains it for two iterations on the CPU,
and compares the peak of each process's resident memory while sampling and while updating with the plan's.

    python -m benchmarks.memory_plan --strategy ddp --processes 2
    python -m benchmarks.memory_plan --strategy fsdp2 --processes 2 training.mixed_precision=bf16

Resident memory follows what is allocated because the allocator is told to take every larger block from the
system and to give it back at once. Counted is what a process uses beyond the same run of a policy of hardly
any weights: libraries, buffers of the communication, rows and images are the same there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mm_cpgd.preflight.memory_item import MemoryItem
    from mm_cpgd.preflight.model_size import ModelSize

MIB = 2**20
PHASES = ("rollout", "update")
COLUMNS = ("rollout", "loss", "layers", "step")
# Larger blocks come from the system one by one, and go back when they are freed.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
RUN = """\
name: memory_plan
policy: {{model: {model}, dtype: float32}}
output: {output}
data:
  train: {{path: "generated:shapes", limit: 16}}
  max_prompt_tokens: 256
rollout: {{prompts: 4, completions: 8, max_new_tokens: 24, batch_prompts: 4}}
rewards: [{{rule: "{folder}/rules.py:ones"}}]
algorithm: {{recipe: cpgd}}
training:
  iterations: 2
  micro_batch_tokens: 512
  logprob_chunk: 256
  mixed_precision: "no"
  threads: 1
checkpoint: {{every: 0}}
"""
RULES = """\
def ones(completion, example):
    return float(len(completion) % 2)
"""


@dataclass(frozen=True)
class Shape:
    """Dimensions of the policy: those of the language model, and the number of layers of both stacks."""

    hidden: int = 512
    intermediate: int = 2048
    layers: int = 14
    vocabulary: int = 32768
    vision_hidden: int = 384
    vision_layers: int = 8


# Of a policy that takes no memory: what remains is the memory of the process itself.
EMPTY = Shape(64, 64, 1, 1024, 48, 1)


@dataclass(frozen=True)
class Comparison:
    """A model, the items of its plan, and the measured peaks by phase in bytes."""

    size: ModelSize
    items: list[MemoryItem]
    measured: dict[str, int]

    @property
    def plan(self) -> dict[str, int]:
        """The plan's peaks: an update is loss, layers and optimizer step."""
        sums = {column: sum(getattr(item, column) for item in self.items) for column in COLUMNS}
        rollout = sums.pop("rollout")
        return {"rollout": rollout, "update": max(sums.values())}

    def error(self, phase: str) -> float:
        """Return the plan's relative error."""
        return self.plan[phase] / self.measured[phase] - 1


def build_policy(folder: Path, shape: Shape) -> Path:
    """Write a policy with random weights, and the tiny policy's tokenizer, processor and template."""
    import torch
    from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from mm_cpgd.policy.model import EMBEDDED

    tiny = EMBEDDED["embedded:tiny"]
    config = AutoConfig.from_pretrained(tiny)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size = shape.hidden, shape.intermediate
    text.num_hidden_layers, text.vocab_size = shape.layers, shape.vocabulary
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 8, 2, shape.hidden // 8
    text.layer_types = ["full_attention"] * shape.layers
    half = shape.hidden // 16
    text.rope_parameters = {
        **text.rope_parameters,
        "mrope_section": [half - 2 * (3 * half // 8), *[3 * half // 8] * 2],
    }
    text.tie_word_embeddings = config.tie_word_embeddings = False
    vision.hidden_size, vision.intermediate_size = shape.vision_hidden, 4 * shape.vision_hidden
    vision.depth, vision.num_heads, vision.out_hidden_size = shape.vision_layers, 6, shape.hidden
    vision.fullatt_block_indexes = [shape.vision_layers - 1]
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(tiny).save_pretrained(folder)
    return folder


def write_run(folder: Path, shape: Shape) -> Path:
    """Write policy, reward and config of the measured run into a folder; return the config's path."""
    policy = build_policy(folder / "policy", shape)
    (folder / "rules.py").write_text(RULES, encoding="utf-8")
    file = folder / "run.yaml"
    file.write_text(RUN.format(model=policy, output=folder / "run", folder=folder), encoding="utf-8")
    return file


def measure(file: Path, overrides: Sequence[str], processes: int) -> dict[str, int]:
    """Run the config in processes of their own; return the largest peak by phase, in bytes.

    Raises:
        RuntimeError: the run fails.
    """
    launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    command = [sys.executable, "-m", *(launch if processes > 1 else []), "benchmarks.memory_plan"]
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, "--worker", str(file), *overrides], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-4000:] + done.stderr[-8000:])
    files = [file.with_name(f"peaks-{rank}.json") for rank in range(processes)]
    peaks = [json.loads(one.read_text(encoding="utf-8")) for one in files]
    return {phase: max(peak[phase] for peak in peaks) for phase in PHASES}


def compare(folder: Path, shape: Shape, overrides: Sequence[str], processes: int) -> Comparison:
    """Plan and run a policy of this shape, and run the empty one.

    Args:
        folder: receives policies, configs and run folders.
        shape: of the policy.
        overrides: of the measured run's config.
        processes: number of processes.
    """
    file, nothing = write_run(folder / "policy", shape), write_run(folder / "empty", EMPTY)
    size, items = planned(file, overrides, processes)
    without = measure(nothing, overrides, processes)
    peaks = measure(file, overrides, processes)
    return Comparison(size, items, {phase: peaks[phase] - without[phase] for phase in PHASES})


def planned(file: Path, overrides: Sequence[str], processes: int) -> tuple[ModelSize, list[MemoryItem]]:
    """Return the size of the config's model, and the items of the plan."""
    from mm_cpgd.config.loading import load_config
    from mm_cpgd.policy import PromptEncoder, load_processor
    from mm_cpgd.preflight.memory import estimate_memory
    from mm_cpgd.preflight.model_size import measure_model
    from mm_cpgd.preflight.setting import Machines, plan_setting
    from mm_cpgd.training.rows import read_source
    from mm_cpgd.training.setup import build_run_objective

    config = load_config(file, overrides)
    size = measure_model(config.policy)
    encoder = PromptEncoder(load_processor(config.policy), None)
    rows = read_source(config.data.train, config.data, max_bad_share=0.0).examples
    longest = max(encoder.length(row) for row in rows)
    setting = plan_setting(config, size, Machines(processes))
    reference = build_run_objective(config).needs_reference
    return size, estimate_memory(config, size, setting, longest, reference=reference)


def work(file: Path, overrides: Sequence[str]) -> None:
    """Train, and write this process's peaks by phase beside the config."""
    from mm_cpgd.config.loading import load_config
    from mm_cpgd.training.run import train
    from mm_cpgd.training.trainer import Trainer

    peaks = dict.fromkeys(PHASES, 0)
    Trainer._collect = noted(Trainer._collect, "rollout", peaks)  # type: ignore[method-assign]
    Trainer._update = noted(Trainer._update, "update", peaks)  # type: ignore[method-assign]
    train(load_config(file, overrides), overwrite=True)
    rank = os.environ.get("RANK", "0")
    file.with_name(f"peaks-{rank}.json").write_text(json.dumps(peaks), encoding="utf-8")


def noted(method: Callable[..., Any], phase: str, peaks: dict[str, int]) -> Callable[..., Any]:
    """Return a method that also notes the peak of the process's memory meanwhile."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with highest(phase, peaks):
            return method(*arguments, **options)

    return wrapped


@contextmanager
def highest(phase: str, peaks: dict[str, int]) -> Iterator[None]:
    """Note the peak of the process's resident memory within the block (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
    yield
    peaks[phase] = max(peaks[phase], resident("VmHWM"))


def resident(field: str) -> int:
    """Return a number of bytes from the process's status: ``VmRSS``, or its peak ``VmHWM``."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", choices=("ddp", "fsdp2"), default="ddp")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--worker", type=Path, help="run this config and note its peaks")
    parser.add_argument("overrides", nargs="*", help="of the run's config: section.key=value …")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.overrides)
        return
    overrides = [f"distributed.strategy={arguments.strategy}", *arguments.overrides]
    with tempfile.TemporaryDirectory() as folder:
        report(compare(Path(folder), Shape(), overrides, arguments.processes))


def report(found: Comparison) -> None:
    """Print the plan's items, and plan against measurement in each phase."""
    size = found.size
    print(f"{size.total / 1e6:.1f} M weights, {size.trained / 1e6:.1f} M trained; MiB:")
    for item in found.items:
        values = (getattr(item, column) / MIB for column in COLUMNS)
        print(f"  {item.name:32}" + "".join(f"{value:9.1f}" for value in values))
    for phase in PHASES:
        plan, peak = found.plan[phase], found.measured[phase]
        error = found.error(phase)
        print(f"{phase:8} planned {plan / MIB:8.1f}  measured {peak / MIB:8.1f}  {error:+.1%}", flush=True)


if __name__ == "__main__":
    main()
