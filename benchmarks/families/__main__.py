"""Check every family on a tiny model with random weights, and write the table of ``docs/families.md``.

    python -m benchmarks.families [FAMILY …]

Needs no download; a family that this version of transformers does not have is left out, and the table is
written only if all others are as it says. Exit status 1 if one is not.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from transformers.utils import logging

from benchmarks.families.build import FAMILIES, absence, not_installed
from benchmarks.families.matrix import CHECKS, PAGE, failure, page_with_table
from benchmarks.families.subject import Subject
from mm_cpgd.tiny.build import build_tiny


def main(names: list[str]) -> int:
    """Run the matrix for these families, by default all; return the exit status."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for check in CHECKS.values():
        if reason := not_installed(check.needs):
            print(f"{check.title}: left out, {reason}")
    failures = 0
    with tempfile.TemporaryDirectory() as place:
        tiny = build_tiny(Path(place) / "tiny")
        for name in names or FAMILIES:
            if reason := absence(name):
                print(f"{name}: left out, {reason}")
                continue
            failures += _run(Subject(name, tiny, Path(place) / name))
    if not failures and not names:
        PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return int(failures > 0)


def _run(subject: Subject) -> int:
    """Run all checks on a family and print what differs from the table; return the number of differences."""
    started = time.monotonic()
    checks = [check for check, column in CHECKS.items() if not not_installed(column.needs)]
    found = {check: failure(subject, check) for check in checks}
    wrong = {check: text for check, text in found.items() if text}
    print(f"{subject.name}: {len(checks) - len(wrong)} of {len(checks)}, {time.monotonic() - started:.1f} s")
    for check, text in wrong.items():
        print(f"  {check}: {text}")
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
