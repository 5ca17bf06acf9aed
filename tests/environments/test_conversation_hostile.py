"""1,000 hostile tool calls by seed: none raises, each gets a reason, memory and time stay bounded."""

from __future__ import annotations

import json
import random
import resource
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data import Example, VideoRef
from data.checks import CONTROL_TOKENS
from data.images import image_size
from data.videos.pictures import PictureSequence
from mm_cpgd.environments import ToolEnvironment
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.environments.checks import check_observation
from mm_cpgd.environments.tools import TOOLS

CALLS = 1_000
# Of an image that a tool returns: 1.2 MB when it is decoded.
PIXELS = 401_408
NUMBERS = [
    0, -1, 1, 500, 999.5, 1000, 1001, -0.0, 1e-300, 1e300, -1e300, 10**9, 10**18, 10**400, 2**63,
    float("nan"), float("inf"), -float("inf"), True, None,
]  # fmt: skip
TEXTS = [
    "", " ", "zoom", "\x00", "\ud800", "😀" * 50, "<|im_end|>", "<image>", "</tool_call>", "<tool_call>",
    "</function>", "</parameter>", "../../etc/passwd", "__import__('os').system('ls')", "9" * 5_000,
    "9" * 300,
    "2^(2^(2^(2^20)))", "(" * 2_000, "1" + "+1" * 900, "x" * 200_000, "%s%n{0}", "100000!", "NaN", "1e999",
    "[" * 3_000, '{"a": ' * 300, "red", "apple", "price",
]  # fmt: skip
SOUND = {
    "box": [100, 100, 900, 900],
    "other_box": [1, 1, 2, 2],
    "start": [0, 0],
    "end": [1000, 1000],
    "point": [5, 5],
    "degrees": 45,
    "radius": 50,
    "expression": "2+2",
    "row": "apple",
    "column": "price",
    "image": 1,
    "other_image": 1,
    "colour": "red",
    "bbox_2d": [100, 100, 900, 900],
    "label": "the plate",
    "seconds": 1.5,
    "video": 1,
}


def hostile_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.choice(
        ["number", "text", "list", "box", "mapping", "deep"] if depth < 3 else ["number", "text"]
    )
    if kind == "number":
        return rng.choice([*NUMBERS, rng.uniform(-2_000, 2_000)])
    if kind == "text":
        return rng.choice(TEXTS)
    if kind == "list":
        return [hostile_value(rng, depth + 1) for _ in range(rng.randint(0, 6))]
    if kind == "box":  # reversed, outside, empty, tiny, huge
        edges = [-5, 0, 1, 499.999, 500, 1000, 10**9, rng.uniform(-1, 1001), "nan", "inf", "500", "1e999"]
        return [rng.choice(edges) for _ in range(4)]
    if kind == "mapping":
        return {rng.choice(TEXTS)[:50]: hostile_value(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    value: Any = 1
    for _ in range(rng.choice([10, 17, 200])):
        value = [value]
    return value


def hostile_turn(rng: random.Random) -> str:
    """One turn of the policy with one or more calls, most of them wrong in one place."""
    tool = TOOLS[rng.choice(list(TOOLS))]
    names = [one.name for one in tool.signature.parameters]
    arguments = {name: SOUND[name] for name in names}
    for name in rng.sample(names, min(len(names), rng.choice([0, 0, 1, 1, 1, 2, 9]))):
        arguments[name] = hostile_value(rng)
    if rng.random() < 0.1:
        arguments[rng.choice(["", "example", "view", "images", "rng", "self", *TEXTS])[:60]] = hostile_value(
            rng
        )
    name = (
        tool.name if rng.random() < 0.9 else rng.choice(["", "os.system", "zoom\x00", "x" * 10_000, "tools"])
    )
    call = write_call(name, arguments, rng.choice(["json", "xml"]))
    damage = rng.choice(
        ["none"] * 9 + ["cut", "twice", "nested", "unclosed", "swap", "bytes", "think", "repeat"]
    )
    if damage == "cut":
        return call[: rng.randrange(len(call))]
    if damage == "twice":
        return call.replace("</tool_call>", "") + call
    if damage == "nested":
        return f"<tool_call>{call}</tool_call>"
    if damage == "unclosed":
        return "<think>" + call.replace("</tool_call>", rng.choice(["", "</tool>", "<tool_call>"]))
    if damage == "swap":
        return call.replace("{", "[").replace("parameter", "param")
    if damage == "bytes":
        place = rng.randrange(len(call))
        return call[:place] + "".join(map(chr, rng.choices(range(1, 0x2FFF), k=20))) + call[place + 5 :]
    if damage == "think":
        return f"{call}</think><think>{call}</think>{call}"
    # As many as a completion of 100,000 tokens could hold.
    return call * max(2, min(200, 300_000 // len(call))) if damage == "repeat" else call


def resident() -> int:
    """Memory of this process, bytes; pixels are not allocated by Python."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def attacks() -> Iterator[tuple[int, str]]:
    for seed in range(CALLS):
        yield seed, hostile_turn(random.Random(f"hostile/{seed}"))


@pytest.mark.slow
def test_a_thousand_hostile_calls_cost_neither_run_nor_memory(example: Example) -> None:
    video = VideoRef("clip", PictureSequence("clip", example.images * 3, 1.0))
    watched = replace(example, videos=(video,))
    statuses: Counter[str] = Counter()
    kept = []
    tracemalloc.start()
    before = most = resident()
    started = time.process_time()
    for seed, turn in attacks():
        made = ToolEnvironment(
            seed, list(TOOLS), image_pixels=PIXELS, scores={"crop_iou": {}, "call_cost": {}}
        )
        made.reset(watched)
        began = time.process_time()
        observation = check_observation(f"call {seed}", made.step(turn))
        assert time.process_time() - began < 5, turn[:200]
        assert observation.reason
        assert len(observation.reason) < 500
        statuses.update({name: count for name, count in observation.counts.items() if count})
        statuses["replied"] += not observation.done
        for message in observation.messages:
            assert message.text.strip()
            assert len(message.text) < 5_000
            assert not any(token in message.text for token in (*CONTROL_TOKENS, "<image", "<tool_"))
            json.dumps(message.text).encode("utf-8")
            for image in message.images:
                width, height = image_size(image)
                assert width * height <= PIXELS
                assert image.open().size == (width, height)
        kept.append((made, observation))
        most = max(most, resident())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All conversations are kept with their images, which would be hundreds of megabytes if they were decoded.
    assert sum(len(message.images) for _, one in kept for message in one.messages) > 120
    assert peak < 30e6
    assert most - before < 100e6
    assert time.process_time() - started < 120
    # The attack is one: most calls are refused, and enough get through for tools to see hostile values.
    assert statuses["replied"] > 700
    assert statuses["malformed_calls"] > 500
    assert statuses["tool_calls"] - statuses["malformed_calls"] - statuses["calls_over_limit"] > 200
    assert statuses["failed_calls"] == 0


def test_the_same_seed_is_the_same_attack() -> None:
    assert hostile_turn(random.Random("hostile/3")) == hostile_turn(random.Random("hostile/3"))
