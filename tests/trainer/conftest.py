"""Every test here may start a run: on the CPU, and with a fresh accelerate state afterwards."""

import pytest


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass
