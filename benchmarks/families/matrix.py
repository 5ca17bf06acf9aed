"""The matrix of families and checks, what is known not to pass, and the table of both in the documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.families import adapters, checks, vllm_loader
from benchmarks.families.build import FAMILIES
from benchmarks.families.subject import Subject
from mm_cpgd.policy.families import SHARED_PREFIX

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
BEGIN, END = "<!-- python -m benchmarks.families -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Check:
    """A column of the table.

    Attributes:
        title: its head.
        run: returns if a family passes, raises if not.
        needs: packages besides the project's.
    """

    title: str
    run: Callable[[Subject], None]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gap:
    """A check that a family does not pass.

    Attributes:
        reason: for users.
        error: pattern of the check's error.
    """

    reason: str
    error: str


CHECKS = {
    "encode": Check("encode", checks.encode),
    "sample": Check("sample", checks.sample),
    "logprobs": Check("log-probs", checks.logprobs),
    "backward": Check("train", checks.backward),
    "vision": Check("train vision", checks.vision),
    "shared_prefix": Check("shared prefix", checks.shared_prefix),
    "lora": Check("LoRA", adapters.language),
    "lora_vision": Check("LoRA vision", adapters.vision),
    "dora": Check("DoRA", adapters.dora),
    "qlora": Check("QLoRA", adapters.quantized, ("bitsandbytes",)),
    "save": Check("save", checks.save),
    "sharded": Check("fsdp2", checks.sharded),
    "vllm": Check("vLLM", vllm_loader.load, ("vllm",)),
}
_SEPARATE = Gap("every completion has its own copy of the prompt", "do not share their prompt's pass")
_UNKNOWN = Gap("vLLM 0.32 knows the names of its code on the hub alone", "no module or parameter named")
GAPS = {(name, "shared_prefix"): _SEPARATE for name in FAMILIES if name not in SHARED_PREFIX}
GAPS["kimi_k25", "vllm"] = _UNKNOWN


def failure(subject: Subject, check: str) -> str | None:
    """Return how the outcome of a check differs from what the table says, None if it does not."""
    gap = GAPS.get((subject.name, check))
    try:
        CHECKS[check].run(subject)
    except Exception as error:  # of a family's own code: any; the other cells are still checked
        if gap is None or not re.search(gap.error, str(error)):
            return f"{type(error).__name__}: {error}"
        return None
    return None if gap is None else f"passes, but is listed as a gap: {gap.reason}"


def table() -> str:
    """Return the table in Markdown, with a numbered note for each kind of gap."""
    notes: dict[str, int] = {}
    lines = [
        "| family | `model_type` | " + " | ".join(check.title for check in CHECKS.values()) + " |",
        "|---|---|" + "---|" * len(CHECKS),
    ]
    for name, family in FAMILIES.items():
        cells = " | ".join(_cell(name, check, notes) for check in CHECKS)
        lines.append(f"| {family.title} | `{name}` | {cells} |")
    return "\n".join([*lines, "", *_listed(notes)]) + "\n"


def page_with_table(page: str) -> str:
    """Return the page of families with the present table between its two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def _cell(name: str, check: str, notes: dict[str, int]) -> str:
    gap = GAPS.get((name, check))
    return "yes" if gap is None else f"no [{notes.setdefault(gap.reason, len(notes) + 1)}]"


def _listed(notes: dict[str, int]) -> Iterator[str]:
    return (f"- [{number}] {reason}" for reason, number in notes.items())
