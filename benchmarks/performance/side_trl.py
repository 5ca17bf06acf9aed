"""TRL's GRPOTrainer on a prepared workload; prints JSON.

python -m benchmarks.performance.side_trl FOLDER
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.performance.measurement import Memory, await_turn, finish, wait
from benchmarks.performance.workload import Workload, coin, read


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore")
    work = read(folder)
    torch.set_num_threads(work.threads)
    memory = Memory()
    trainer, clock = _trainer(folder, work)
    await_turn()
    if not work.peer_iterations_before:
        _warm_up(trainer, work)
    memory.loaded()
    trainer.train()
    memory.worked()
    finish(*clock.iterations(work), memory)


class Clock:
    """Durations of the optimizer steps, and of the sampling and scoring that precedes each update."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.rollouts: list[float] = []
        self.began = 0.0
        self.sampling = 0.0

    def iterations(self, work: Workload) -> tuple[list[float], dict[str, list[float]]]:
        """Return seconds per iteration, in total and by phase, without the warm-up."""
        groups = range(work.peer_iterations_before * work.updates, len(self.steps), work.updates)
        totals = [sum(self.steps[i : i + work.updates]) for i in groups]
        rollouts = [sum(self.rollouts[i : i + work.updates]) for i in groups]
        updates = [total - rollout for total, rollout in zip(totals, rollouts, strict=True)]
        return totals, {"rollout": rollouts, "update": updates}


def _trainer(folder: Path, work: Workload) -> tuple[Any, Clock]:
    from transformers import AutoProcessor, TrainerCallback
    from trl import GRPOTrainer

    from mm_cpgd.policy.families import vision_modules

    clock = Clock()

    class Timing(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            wait()
            clock.began, clock.sampling = time.perf_counter(), 0.0

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            wait()
            clock.steps.append(time.perf_counter() - clock.began)
            clock.rollouts.append(clock.sampling)

    class Timed(GRPOTrainer):
        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            wait()
            started = time.perf_counter()
            result = super()._generate_and_score_completions(*args, **kwargs)
            wait()
            clock.sampling += time.perf_counter() - started
            print(f"sampled and scored in {clock.sampling:.2f} s", file=sys.stderr, flush=True)
            return result

    def reward(completions: list[Any], **kwargs: Any) -> list[float]:
        return [coin(completion[0]["content"]) for completion in completions]

    trainer = Timed(
        model=str(folder / "model"),
        reward_funcs=reward,
        args=_config(folder, work),
        train_dataset=_rows(folder),
        processing_class=AutoProcessor.from_pretrained(folder / "model"),
        callbacks=[Timing()],
        peft_config=_adapters(work),
    )
    if work.frozen_vision:
        for module in vision_modules(trainer.model):
            module.requires_grad_(False)
    return trainer, clock


def _warm_up(trainer: Any, work: Workload) -> None:
    """Generate four tokens and take a backward pass of one prompt, so that libraries are ready."""
    row = trainer.train_dataset[0]
    content = [
        {"type": "image", "image": row["image"]},
        {"type": "text", "text": row["prompt"][0]["content"]},
    ]
    batch = trainer.processing_class.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    ).to(trainer.accelerator.device)  # fmt: skip
    device = trainer.accelerator.device.type
    with torch.autocast(device, torch.bfloat16, enabled=work.cuda):
        trainer.model.generate(**batch, max_new_tokens=4)
        trainer.model(**batch).logits.float().square().mean().backward()
    trainer.model.zero_grad()


def _adapters(work: Workload) -> Any:
    """Return adapters on all linear layers of the language model, as this project's, or None."""
    if not work.lora:
        return None
    from peft import LoraConfig

    layers = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    return LoraConfig(r=work.lora, lora_alpha=2 * work.lora, target_modules=layers)


def _rows(folder: Path) -> Any:
    from datasets import Dataset, Image

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    # Prompts without image markers: the trainer inserts each row's image into the first user message.
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row["question"]}],
                "image": str(folder / row["image"]),
            }
            for row in rows
        ]
    ).cast_column("image", Image())


def _config(folder: Path, work: Workload) -> Any:
    from trl import GRPOConfig

    batch = work.prompts * work.completions
    steps_of_accumulation = max(1, batch // (work.rows or batch))
    return GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=batch // steps_of_accumulation,
        gradient_accumulation_steps=steps_of_accumulation,
        num_generations=work.completions,
        num_iterations=work.updates,
        max_completion_length=work.completion_tokens,
        generation_kwargs={"min_new_tokens": work.completion_tokens},
        beta=0.04 if work.reference else 0.0,
        loss_type="grpo",
        max_steps=(work.peer_iterations_before + work.peer_iterations_timed) * work.updates,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        gradient_checkpointing=work.checkpointing,
        bf16=work.cuda,
        use_cpu=not work.cuda,
        model_init_kwargs={"dtype": work.dtype, "attn_implementation": work.attention},
        use_vllm=work.engine == "vllm",
        vllm_mode="colocate",
        logging_steps=10**6,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        shuffle_dataset=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
