"""One section in this process, whose rows it prints.

python -m benchmarks.gpu.section NAME SETTINGS SCRATCH
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.gpu.runner import MARK
from benchmarks.gpu.sections import rows_of
from benchmarks.gpu.settings import Settings


def main(name: str, settings: str, scratch: str) -> None:
    for row in rows_of(name)(Settings.from_json(json.loads(settings)), Path(scratch)):
        print(MARK + json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
