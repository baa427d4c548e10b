import os
import signal

import pytest

from reinforce_dropout.running import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_check_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interrupts.deferred() as pending:
        pending.check()
        os.kill(os.getpid(), number)
        reached = True  # the signal has not raised
        pending.check()
    assert reached
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal waited")


def test_interrupted_compiled_code_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise SystemError("returned a result with an exception set")
    with pytest.raises(SystemError), interrupts.deferred():
        raise SystemError("something else")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.deferred() as pending:
            os.kill(os.getpid(), signal.SIGINT)
            pending.check()
    finally:
        signal.signal(signal.SIGINT, before)
