"""One section in this process, whose rows it prints; it begins when its standard input is closed.

python -m benchmarks.gpu.section NAME SETTINGS SCRATCH < /dev/null
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.gpu.policies import installed
from benchmarks.gpu.runner import MARK
from benchmarks.gpu.sections import rows_of
from benchmarks.gpu.settings import Settings


def main(name: str, settings: str, scratch: str) -> None:
    run = rows_of(name)
    if name != "device":
        _import_libraries()
    sys.stdin.read()
    for row in run(Settings.from_json(json.loads(settings)), Path(scratch)):
        print(MARK + json.dumps(row), flush=True)


def _import_libraries() -> None:
    """Import what every section needs, which takes many seconds where files are read for the first time."""
    importlib.import_module("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl")
    for module in ("mm_cpgd.policy.model", "mm_cpgd.training.experience", "mm_cpgd.rollout"):
        importlib.import_module(module)
    for package in ("peft",):
        if not installed(package):
            importlib.import_module(package)


if __name__ == "__main__":
    main(*sys.argv[1:])
