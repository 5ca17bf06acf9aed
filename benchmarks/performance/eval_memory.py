"""Memory of ``mm-cpgd eval`` on questions about large images: constant, however many there are.

Draws N images of 1000 x 1000 pixels as JPEG files, asks the embedded tiny policy about each, and prints the
resident memory of the process at every tenth. All decoded images at once would take N x 3 MB.

    python -m benchmarks.performance.eval_memory --pictures 3040
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data.images import image_ref
from eval.generate.decoding import Decoding
from eval.generate.generate import Question, generate_responses
from eval.generate.local import LocalGenerator

SIDE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=3040)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-pixels", type=int, default=12544)
    parser.add_argument("--max-new-tokens", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        questions = [
            Question(str(number), "What is in the picture?", (image_ref(draw(Path(folder), number)),))
            for number in range(arguments.pictures)
        ]
        generator = LocalGenerator(
            "embedded:tiny", batch=arguments.batch, max_pixels=arguments.max_pixels, device="cpu"
        )
        measure(questions, generator, Decoding(arguments.max_new_tokens))


def draw(folder: Path, number: int) -> Path:
    """Write one image, different from all others, and return its path."""
    coarse = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    path = folder / f"{number}.jpg"
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=80)
    return path


def measure(questions: list[Question], generator: LocalGenerator, decoding: Decoding) -> None:
    """Answer all questions; print the memory in use after each tenth, and a summary as JSON."""
    started = time.monotonic()
    seen: list[tuple[int, float]] = []

    def note(done: int, total: int) -> None:
        if done % max(1, total // 10) == 0 or done == 1:
            seen.append((done, resident()))
            print(
                f"{done:6,} responses  {seen[-1][1]:7.1f} MB  {time.monotonic() - started:6.1f} s", flush=True
            )

    before = resident()
    found = generate_responses(questions, generator, decoding, progress=note)
    later = [size for done, size in seen if done > len(questions) // 10]
    print(
        json.dumps(
            {
                "pictures": len(found.responses),
                "before_mb": round(before, 1),
                "first_tenth_mb": round(seen[1][1], 1),
                "most_later_mb": round(max(later), 1),
                "last_mb": round(seen[-1][1], 1),
                "decoded_all_at_once_mb": round(len(questions) * SIDE * SIDE * 3 / 1e6),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )


def resident() -> float:
    """Return this process's resident memory in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
