"""Kills and damage: runs that are killed at random moments, and checkpoints with flipped bytes.

    python -m benchmarks.robustness kills --count 36    # each resumed run equals the uninterrupted one
    python -m benchmarks.robustness flips               # each flipped byte in a checkpoint is noticed

A kill is a SIGKILL at a random moment of a small run, which is then resumed to its end. Metrics (without
times), final weights and held-out numbers must equal those of the uninterrupted run in every digit. Exit
status 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mm_cpgd.checkpoint.folder import find_damage

CONFIG = """\
name: small
seed: 3
output: run
policy: {model: "embedded:tiny", dtype: float32}
data:
  train: {path: "generated:all", limit: 60, seed: 1}
  eval: {path: "generated:all", limit: 8, seed: 2}
rollout: {prompts: 8, completions: 4, max_new_tokens: 16, temperature: 1.2, top_p: 0.95}
training: {iterations: 6, mini_batch_prompts: 4, learning_rate: 2.0e-5, threads: 1, inner_epochs: 2}
evaluation: {every: 2}
checkpoint: {every: 1, keep: 2}
"""
TIMES = ("seconds/", "tokens/per_second")


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mm_cpgd", "train", "config.yaml", *options]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def results(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    """Return the metrics without times, and the final weights."""
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        {key: value for key, value in json.loads(line).items() if not key.startswith(TIMES)} for line in lines
    ]
    return rows, (folder / "run" / "final" / "model.safetensors").read_bytes()


def straight(folder: Path) -> float:
    """Run without interruption; return the seconds that it took."""
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    begun = time.monotonic()
    if start(folder).wait():
        raise SystemExit("the uninterrupted run failed; run `mm-cpgd train` with the config to see why")
    return time.monotonic() - begun


def kills(folder: Path, count: int, seed: int) -> int:
    """Kill and resume ``count`` runs; return how many differ from the uninterrupted one."""
    seconds = straight(folder)
    expected = results(folder)
    rng, different = random.Random(seed), 0
    for number in range(1, count + 1):
        shutil.rmtree(folder / "run")
        moments = []
        while True:  # the resumed run may be killed again
            run, moment = start(folder, "--resume"), rng.uniform(0.3, 1.0) * seconds
            try:
                run.wait(moment)
                break
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                moments.append(moment)
                if len(moments) == 2:
                    start(folder, "--resume").wait()
                    break
        same = (folder / "run" / "final").is_dir() and results(folder) == expected
        different += not same
        after = " and ".join(f"{moment:.1f} s" for moment in moments) or "its end"
        print(f"{number} of {count}: killed after {after}: {'equal' if same else 'DIFFERENT'}", flush=True)
    return different


def flips(folder: Path, seed: int) -> int:
    """Flip a byte in each file of each checkpoint; return how many flips are not noticed."""
    straight(folder)
    rng, missed = random.Random(seed), 0
    for checkpoint in sorted((folder / "run" / "checkpoints").glob("step-*")):
        for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
            content = file.read_bytes()
            for _ in range(3):
                place = rng.randrange(len(content))
                file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
                found = find_damage(checkpoint)
                missed += found is None
                print(f"{checkpoint.name}/{file.name}, byte {place:,}: {found or 'NOT NOTICED'}", flush=True)
            file.write_bytes(content)
    return missed


def main() -> None:
    """Parse the arguments, carry out one campaign, and exit with 1 if something was not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("campaign", choices=("kills", "flips"))
    parser.add_argument("--count", type=int, default=8, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong = (
            kills(folder, chosen.count, chosen.seed)
            if chosen.campaign == "kills"
            else flips(folder, chosen.seed)
        )
    print(f"{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
