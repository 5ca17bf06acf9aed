"""Seconds that an iteration waits for its prompts, and what their encoding costs the update.

    python -m benchmarks.performance.encoding

An iteration takes the prompts of 8 images of 1,000 tokens, then "learns" for ``--update`` seconds, in which
the next ones are encoded: not at all, in a thread, or by 1 and 2 processes (``data.workers``). The update
either leaves the processor free, as it does once a GPU is busy, or carries out small operations one after
the other, as the calls of a GPU's kernels are: as many as take that long without encoding.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from data import Example, image_ref
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import PromptEncoder, load_policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.training.ahead.prefetch import PromptPrefetcher, encode_rows

TOKENS, PROMPTS = 1000, 8
# Width and height: of an image that keeps its size, and of a photograph that is shrunk.
SIZES = {"896 × 896": (896, 896), "4,000 × 3,000": (4000, 3000)}


def write_images(folder: Path, size: tuple[int, int]) -> list[Example]:
    """Write JPEG files with detail of all sizes, and return a row for each."""
    rng, examples = np.random.default_rng(0), []
    for number in range(PROMPTS):
        pixels = sum(
            np.asarray(
                Image.fromarray(rng.integers(0, 64, (side, side, 3), dtype=np.uint8)).resize(size), dtype=int
            )
            for side in (8, 64, 512)
        )
        stream = io.BytesIO()
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(stream, "JPEG", quality=90)
        file = folder / f"{size[0]}-{number}.jpg"
        file.write_bytes(stream.getvalue())
        examples.append(Example(str(number), "What is in the picture?", "3", (image_ref(file),)))
    return examples


def small_operations(count: int) -> None:
    """Carry out small operations one after the other."""
    values = torch.zeros(64)
    for _ in range(count):
        values = values.add(1.0)


def operations_in(seconds: float) -> int:
    """Return how many take this long."""
    count, times = 50_000, []
    for _ in range(10):
        started = time.perf_counter()
        small_operations(count)
        times.append(time.perf_counter() - started)
    return round(count * seconds / median(times))


def measure(
    encoder: PromptEncoder,
    examples: list[Example],
    workers: PromptWorkers | None,
    update: Callable[[], None],
    iterations: int,
    *,
    ahead: bool,
) -> tuple[float, float]:
    """Return the median seconds of an iteration's wait for prompts and of its update."""
    indices = list(range(len(examples)))
    prefetcher = PromptPrefetcher(lambda index: encoder.encode(examples[index]), examples, workers)
    waits, updates = [], []
    for _ in range(iterations):
        started = time.perf_counter()
        prompts, _ = encode_rows(encoder, examples, prefetcher.take(indices))
        taken = time.perf_counter()
        if ahead:
            prefetcher.begin(indices)
        update()
        waits.append(taken - started)
        updates.append(time.perf_counter() - taken)
        del prompts
    prefetcher.drop()
    return median(waits[1:]), median(updates[1:])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", type=float, default=2.0)
    parser.add_argument("--iterations", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = PolicyConfig(model="embedded:tiny", dtype="float32", max_pixels=TOKENS * 28 * 28)
    encoder = load_policy(config).encoder
    count = operations_in(options.update)
    updates = {"waits": lambda: time.sleep(options.update), "calls": lambda: small_operations(count)}
    ways = {"no prefetch": (0, False), "thread": (0, True), "1 worker": (1, True), "2 workers": (2, True)}
    print("| images | next prompts | wait | update that waits | wait | update of calls |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            examples = write_images(Path(folder), size)
            for way, (processes, ahead) in ways.items():
                workers = PromptWorkers(encoder, processes) if processes else None
                if workers:
                    workers.wait()
                cells = []
                for update in updates.values():
                    found = measure(encoder, examples, workers, update, options.iterations, ahead=ahead)
                    cells += [f"{seconds:.2f}" for seconds in found]
                if workers:
                    workers.close()
                print(f"| {name} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
