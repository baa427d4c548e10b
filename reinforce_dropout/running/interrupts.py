"""Ctrl-C and SIGTERM, deferred until the state of a run is whole."""

import contextlib
import signal
import threading


class Interrupts:
    """Whether an interrupt was requested while `deferred` lasts."""

    def __init__(self):
        self.requested = False

    def handle(self, *_):
        """Note the first signal; raise KeyboardInterrupt at the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def check(self):
        """Raise KeyboardInterrupt if a signal has come."""
        if self.requested:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deferred():
    """Let SIGINT and SIGTERM wait for the next `Interrupts.check`.

    A signal's exception must not come just anywhere. In compiled code it becomes a SystemError.
    While a progress bar is drawn, it leaves the bars' lock held.
    """
    interrupts, previous = Interrupts(), {}
    # Only the main thread may set handlers. Ignored signals, as in background jobs, stay ignored.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupts.handle)
    try:
        yield interrupts
    except SystemError:
        interrupts.check()  # the second signal came in compiled code
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
