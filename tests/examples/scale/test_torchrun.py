"""The script for machines without a scheduler: two calls of it, as on two machines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from tests.paths import ROOT


@pytest.mark.slow
def test_two_calls_with_one_address_train_together(tmp_path: Path, make_yaml: Callable[[Path], Path]) -> None:
    settings = {
        "CONFIG": str(make_yaml(tmp_path)),
        "OUTPUT": str(tmp_path / "run"),
        "OPTIONS": "distributed.strategy=ddp training.iterations=1",
        "NODES": "2",
        "HEAD": "127.0.0.1",
        "PORT": str(get_free_port()),
        "GPUS": "1",
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    # The script calls `python`: the one of this suite, also where its environment is not active.
    script = ["bash", str(ROOT / "examples" / "scale" / "torchrun.sh")]
    calls = [subprocess.Popen(script, env=os.environ | settings) for _ in range(2)]
    assert [call.wait(200) for call in calls] == [0, 0]
    assert (tmp_path / "run" / "summary.json").exists()
