"""Steps as CUDA graphs: what is recorded, when it is recorded again, and when it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from mm_cpgd.rollout import steps
from mm_cpgd.rollout.steps import GraphStep, HostReads
from tests.fakes import recorded_steps

VALUES = torch.tensor([3.0, 0.0, 2.0])


@pytest.mark.parametrize(
    "read",
    [
        lambda: VALUES.sum().item(),
        lambda: VALUES.nonzero(),
        lambda: VALUES[VALUES > 1],
        lambda: VALUES.clone().index_put_((VALUES > 1,), torch.zeros(2)),
        lambda: VALUES.unique(),
        lambda: VALUES.masked_select(VALUES > 1),
        lambda: bool(VALUES[0] > 1),
        lambda: torch.equal(VALUES, VALUES),
        lambda: VALUES.to("meta"),
    ],
)
def test_operations_that_need_values_on_the_host_are_found(read: Callable[[], object]) -> None:
    with HostReads() as reads:
        read()
    assert reads.found


def test_operations_of_fixed_shapes_are_not_taken_for_reads() -> None:
    with HostReads() as reads:
        index = torch.tensor([1, 0])
        found = VALUES[index].softmax(-1).to(torch.float64).cumsum(-1)
        found[index[:1]] = 0.0
        torch.searchsorted(found, VALUES.double())
    assert not reads.found


class Counter:
    """A step that adds to a tensor what another holds, and counts how often Python runs it."""

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.amount = torch.ones(())
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.total += self.amount


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "record", recorded_steps.record)


def test_a_step_is_called_once_then_recorded_and_repeated(counter: Counter) -> None:
    step = GraphStep()
    totals = []
    for _ in range(5):
        step(counter, 0)
        totals.append(counter.total.item())
    assert totals == [1, 2, 3, 4, 5]
    assert counter.calls == 2


def test_values_that_change_between_steps_are_used(counter: Counter) -> None:
    step = GraphStep()
    for amount in (1.0, 1.0, 5.0, 7.0):
        counter.amount.fill_(amount)
        step(counter, 0)
    assert counter.total.item() == 14


def test_another_version_is_called_and_recorded_anew(counter: Counter) -> None:
    step = GraphStep()
    for version in (0, 0, 0, 1, 1, 1, 0):
        if version != step.version:
            counter.total = counter.total.clone()
        step(counter, version)
    assert counter.total.item() == 7
    assert counter.calls == 5


def test_a_step_that_the_host_reads_in_is_called_each_time_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    total = torch.zeros(())

    def reads() -> None:
        total.add_(len(VALUES.nonzero()))

    step = GraphStep()
    with caplog.at_level(logging.WARNING):
        for version in (0, 0, 0, 1, 1):
            step(reads, version)
    assert total.item() == 10
    (record,) = caplog.records
    assert "aten.nonzero" in record.getMessage()


def test_a_failure_of_recording_leaves_the_step_to_python(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(steps, "record", fail)
    step = GraphStep()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            step(counter, 0)
    assert counter.total.item() == 4
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "recording failed: CUDA error: operation not permitted when stream is capturing"
    )


def test_the_stand_in_for_recording_undoes_what_it_did() -> None:
    values = torch.zeros(3)

    def step() -> None:
        values.add_(1)
        values.mul_(2)

    replay = recorded_steps.record(step)
    assert values.tolist() == [0, 0, 0]
    replay()
    replay()
    assert values.tolist() == [6, 6, 6]
