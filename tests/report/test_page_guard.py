"""Row of the report on the guard's alarms and rollbacks."""

from __future__ import annotations

from pathlib import Path

from mm_cpgd.report.page import facts
from mm_cpgd.report.run_data import load_run
from mm_cpgd.tracking import MetricsLog


def test_the_report_names_alarms_and_rollbacks(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"guard/alarms": 0.0})
    assert "Guard" not in dict(facts(load_run(tmp_path)))
    log.write(2, {"guard/alarms": 2.0, "guard/rolled_back_to": 1.0, "guard/always": 1.5})
    log.write(3, {"guard/alarms": 1.0})
    guard = dict(facts(load_run(tmp_path)))["Guard"]
    assert guard == "alarm in 2 of 3 iterations, first in 2; rolled back 2 → 1"
