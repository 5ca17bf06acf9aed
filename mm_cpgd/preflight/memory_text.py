"""Memory of a run's plan as tables and a verdict in words."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mm_cpgd.preflight.memory import total_of
from mm_cpgd.preflight.memory_host import HostItem, host_items
from mm_cpgd.preflight.memory_item import PHASES, MemoryItem
from mm_cpgd.preflight.memory_rollout import vllm_cache_bytes, vllm_weight_bytes
from mm_cpgd.preflight.text import size_text
from mm_cpgd.preflight.verdict import Case, judge


def print_memory(case: Case, console: Console) -> None:
    """Print the memory of each GPU by part and phase, that of a machine's CPU side, and the verdict."""
    items = case.items()
    console.print(_gpu_table(case, items))
    found = host_items(case.config, case.size, case.setting, reference=case.reference)
    console.print(_host_table(case, found))
    for line in [*judge(case, size_text).lines, *_server_lines(case)]:
        console.print(Text(line), highlight=False)


def layout_text(case: Case) -> str:
    """Return strategy and processes in words."""
    machines, strategy = case.setting.machines, case.setting.strategy
    if machines.processes == 1:
        return "one process"
    kind = (
        "fsdp2: weights, gradients and optimizer state in shards"
        if case.setting.sharded
        else "ddp: all is whole"
    )
    offload = ", shards in CPU memory" if case.setting.sharded and strategy.cpu_offload else ""
    nodes = f" on {machines.nodes} machines" if machines.nodes > 1 else ""
    return f"{machines.processes} processes{nodes}, {kind}{offload}"


def _gpu_table(case: Case, items: list[MemoryItem]) -> Table:
    title = f"Estimated memory of each process ({layout_text(case)})"
    table = Table(title=Text(title), title_justify="left")
    for heading in ("item", *PHASES, "how"):
        table.add_column(heading, justify="right" if heading in PHASES else "left")
    for item in items:
        table.add_row(item.name, *(size_text(getattr(item, phase)) for phase in PHASES), item.how)
    table.add_section()
    total = total_of(items)
    sums = (size_text(getattr(total, phase)) for phase in PHASES)
    table.add_row(total.name, *sums, "at the longest prompt and completion")
    return table


def _host_table(case: Case, items: list[HostItem]) -> Table:
    processes = case.setting.machines.per_node
    title = "CPU memory of the main process's machine, besides libraries and data"
    table = Table(title=title, title_justify="left")
    for heading in ("item", "memory", "how"):
        table.add_column(heading, justify="right" if heading == "memory" else "left")
    for item in items:
        times = f"; {processes} × {size_text(item.each)}" if item.each and processes > 1 else ""
        table.add_row(item.name, size_text(item.on_node(processes)), f"{item.how}{times}")
    return table


def _server_lines(case: Case) -> list[str]:
    rollout = case.config.rollout
    if rollout.engine != "vllm" or rollout.vllm.mode != "server":
        return []
    weights = vllm_weight_bytes(case.config, case.size)
    cache = vllm_cache_bytes(case.config, case.size, case.prompt_tokens)
    return [
        f"Each vLLM server needs {size_text(weights)} for the weights, divided among its GPUs, "
        f"and {size_text(cache)} of cache for every longest completion in progress; nothing of it is on the "
        "trainer's GPUs."
    ]
