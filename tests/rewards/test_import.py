"""Modules that importing rewards loads."""

from __future__ import annotations

import subprocess
import sys


def test_importing_and_cheap_verdicts_load_neither_sympy_nor_torch() -> None:
    code = (
        "import sys, rewards; assert rewards.verify('\\\\boxed{1/2}', '0.5').score == 1;"
        "rewards.list_rules();"
        "bad = {'sympy', 'torch', 'numpy', 'data', 'mm_cpgd', 'eval'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
