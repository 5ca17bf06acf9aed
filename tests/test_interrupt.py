"""Signals are noted and obeyed at a safe place, by all processes together."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from mm_cpgd.checkpoint.serialization import CheckpointError
from mm_cpgd.distributed import on_main
from mm_cpgd.interrupt import Interrupted, StopRequest, check, requested


class Processes:
    """This process, and what another one contributes when tensors are gathered."""

    device = torch.device("cpu")
    num_processes = 2

    def __init__(self, other: int = 0, is_main_process: bool = True) -> None:
        self.other = other
        self.is_main_process = is_main_process

    def gather(self, mine: torch.Tensor) -> torch.Tensor:
        return torch.cat([mine, torch.tensor([self.other])])


def request(other: int = 0) -> StopRequest:
    accelerator: Any = Processes(other)
    return StopRequest(accelerator)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_does_not_interrupt(number: int) -> None:
    with request() as stop:
        assert not stop.wanted()
        os.kill(os.getpid(), number)
        assert stop.wanted()
    assert stop.signal == number


def test_a_process_knows_of_its_own_signal_while_it_is_caught() -> None:
    assert not requested()
    with request():
        assert not requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested()
    assert not requested()


def test_a_second_ctrl_c_stops_at_once() -> None:
    with request():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signal_handlers_are_restored_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with request():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_to_one_process_stops_all() -> None:
    stop = request(other=signal.SIGTERM)
    assert stop.wanted()
    assert stop.signal == signal.SIGTERM


def test_check_interrupts_only_on_request() -> None:
    check(lambda: False)
    with pytest.raises(Interrupted):
        check(lambda: True)


class TestOnMain:
    """What one process does for all; ``broadcast`` stands for the way to the others."""

    def test_other_processes_receive_the_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mm_cpgd.distributed.broadcast_object_list", lambda _: ["of the main one", None])
        accelerator: Any = Processes(is_main_process=False)
        assert on_main(accelerator, lambda: pytest.fail("should not work")) == "of the main one"

    def test_a_user_error_on_the_main_process_is_raised_on_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[list[Any]] = []

        def broadcast(outcome: list[Any]) -> list[Any]:
            sent.append(outcome)
            return sent[0]

        def fail() -> None:
            raise CheckpointError("the disk is full")

        monkeypatch.setattr("mm_cpgd.distributed.broadcast_object_list", broadcast)
        for is_main in (True, False):
            accelerator: Any = Processes(is_main_process=is_main)
            with pytest.raises(CheckpointError, match="the disk is full"):
                on_main(accelerator, fail)
