"""``mm-cpgd guard`` on stored runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "arguments", [["{run}"], ["{run}/metrics.jsonl"], ["{run}", "--json", "{run}/alarms.json"]]
)
def test_the_command_replays_a_stored_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    from mm_cpgd.cli import main as cli
    from mm_cpgd.tracking import MetricsLog

    log = MetricsLog(tmp_path / "metrics.jsonl")
    for iteration, accuracy in enumerate([0.2, 0.8, 0.7, 0.3]):
        log.write(iteration, {"policy/drift": 3.0 * (iteration == 1), "eval/accuracy": accuracy})
    filled = [argument.format(run=tmp_path) for argument in arguments]
    monkeypatch.setattr("sys.argv", ["mm-cpgd", "guard", *filled])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "iteration 1: drift_extreme" in output
    if "--json" in arguments:
        (run,) = json.loads((tmp_path / "alarms.json").read_text())["runs"]
        assert (run["alarm"], run["sign"], run["halved"], run["lead"]) == (1, "drift_extreme", 3, 2)


def test_a_folder_without_metrics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mm_cpgd.cli import main as cli

    monkeypatch.setattr("sys.argv", ["mm-cpgd", "guard", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "has no metrics" in capsys.readouterr().err
