"""Ctrl-C and SIGTERM, kept until a moment at which the state of a run is whole."""

import contextlib
import signal
import threading


class Interrupts:
    """What has been asked for while `deferred` lasts."""

    def __init__(self):
        self.requested = False

    def handle(self, *_):
        """Take note of a signal; a second one does not wait."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def check(self):
        """Raise KeyboardInterrupt if it was asked for."""
        if self.requested:
            raise KeyboardInterrupt


@contextlib.contextmanager
def deferred():
    """Let SIGINT and SIGTERM wait for the next `Interrupts.check`.

    An exception raised by a signal in the middle of compiled code becomes a SystemError there, and
    one in the middle of drawing a progress bar leaves the bars' lock held.

    Yields
    ------
    Interrupts
    """
    interrupts, previous = Interrupts(), {}
    # Only the main thread may set handlers. What is ignored, as in background jobs, stays ignored.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupts.handle)
    try:
        yield interrupts
    except SystemError:
        interrupts.check()  # the second signal, which did not wait, met compiled code
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
