"""A signal ends a worker once, however often it comes."""

from __future__ import annotations

import os
import signal

import pytest

from ndif_batch.worker.signals import SIGNALS, on_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_acts(number: signal.Signals) -> None:
    seen: list[signal.Signals] = []
    with on_signals(seen.append):
        os.kill(os.getpid(), number)
    assert seen == [number]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_second_one_does_not_interrupt_what_the_first_began(number: signal.Signals) -> None:
    ended: list[str] = []

    def leave(number: signal.Signals) -> None:
        raise SystemExit

    def work() -> None:
        with on_signals(leave):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), number)
                ended.append("in good order")

    with pytest.raises(SystemExit):
        work()
    assert ended == ["in good order"]


def test_the_keyboard_interrupts_what_the_first_signal_began() -> None:
    def work() -> None:
        with on_signals(lambda number: None):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work()


def test_afterwards_signals_mean_what_they_meant() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with on_signals(lambda number: None):
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before
