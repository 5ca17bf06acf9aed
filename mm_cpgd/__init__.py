"""mm-cpgd: reinforcement learning with verifiable rewards for vision-language models.

``load_config`` reads a config, ``train`` and ``fine_tune`` run it. They are imported at first use, so that
``import mm_cpgd`` stays cheap and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mm_cpgd import import_guard

import_guard.install()

if TYPE_CHECKING:
    from mm_cpgd.config.loading import load_config
    from mm_cpgd.training.run import fine_tune, train

__version__ = "0.1.0"
__all__ = ["__version__", "fine_tune", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name == "load_config":
        from mm_cpgd.config.loading import load_config

        return load_config
    if name in ("fine_tune", "train"):
        from mm_cpgd.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
