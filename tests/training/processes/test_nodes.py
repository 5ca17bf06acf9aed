"""What every process of a run has to find on its machine: the run folder, and the same rows."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.generated import generate
from mm_cpgd.errors import UserError
from mm_cpgd.training.processes import nodes
from tests.fakes import training_runs as jobs
from tests.fakes.training_runs import OnRank

TWO: Any = SimpleNamespace(num_processes=2, process_index=1)


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """Let these be what the other processes send, before this one's."""
    return lambda found: monkeypatch.setattr(nodes, "gather_object", lambda own: [*found, *own])


def test_a_run_folder_that_a_process_does_not_see_is_refused(tmp_path: Path, others: Any) -> None:
    others([None])
    with pytest.raises(
        UserError, match=r"^process 1 on .* does not see the run folder .* all machines share"
    ):
        nodes.check_run_folder(TWO, tmp_path / "run" / "run.lock", within=0.2)


def test_a_file_that_appears_late_is_seen(tmp_path: Path, others: Any) -> None:
    others([None])
    file = tmp_path / "run.lock"
    timer = threading.Timer(0.3, file.touch)
    timer.start()
    nodes.check_run_folder(TWO, file, within=20)
    timer.join()


def test_the_same_rows_pass(others: Any) -> None:
    rows = generate(("shapes",), 6, seed=1)
    others([("gpu-0", 6, nodes._digest(rows))])
    nodes.check_rows(TWO, "training", rows)


def test_other_rows_of_the_same_number_are_refused(others: Any) -> None:
    rows = generate(("shapes",), 6, seed=1)
    changed = [*rows[:-1], dataclasses.replace(rows[-1], answer="another")]
    others([("gpu-0", 6, nodes._digest(rows))])
    with pytest.raises(UserError, match=r"^training rows: process 1 on .* than process 0 on gpu-0 \(6 and 6"):
        nodes.check_rows(TWO, "training", changed)


def read_fewer_rows() -> None:
    from mm_cpgd.training import run

    original = run.load_rows

    def fewer(config: Any, source: Any, *args: Any) -> Any:
        return original(config, source.model_copy(update={"limit": 2}), *args)

    run.load_rows = fewer


def lose_the_rows() -> None:
    from data import DataError
    from mm_cpgd.training import run

    def none(*args: Any) -> Any:
        raise DataError("/data/rows.jsonl does not exist")

    run.load_rows = none


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (read_fewer_rows, r"training rows: process 1 on"),
        (lose_the_rows, "/data/rows.jsonl does not exist"),
    ],
)
def test_other_data_on_one_machine_end_both_processes_with_one_message(
    yaml: Path, tmp_path: Path, sabotage: Callable[[], None], message: str
) -> None:
    assert jobs.in_two_processes(yaml, (), OnRank(1, sabotage)) == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert message in said
    assert "Traceback" not in said + (tmp_path / "stderr-1").read_text()
    # The start can be repeated as it is.
    assert not (tmp_path / "run" / "config.yaml").exists()
