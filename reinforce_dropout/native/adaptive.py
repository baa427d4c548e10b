"""A number of threads that follows the load of the machine.

No bit of what the kernels compute depends on it.
"""

import math
import threading
import time

SLICE_SECONDS = 0.008
"""Calls are compared by slices of this length. A busy core makes us wait in every one."""
SECONDS_BETWEEN_COMPARISONS = 2.0
"""If no call has become slow."""
LARGEST_COST = 0.02
"""Comparisons may cost this share of the time."""
CLIFF = 1.5
"""A slice that takes this many times the expected time is no noise."""
GAIN = 0.97
"""Another number of threads must take at most this share of the present number's time."""

_ONE_CALL = threading.Lock()  # Numba's layer "workqueue" aborts a process with two calls at once.


class Adaptive:
    """A compiled function whose kernels use the number of threads that is fastest at the moment.

    A call uses at most Numba's own number of threads, and restores that number. Calls are compared
    with calls of about equal work, by the size of the first argument. Several Python threads may
    call it; one waits for the other.

    Parameters
    ----------
    function : callable
        Its first argument is an array. No bit of the result may depend on the number of threads.
    exchange : callable
        ``exchange(n_threads) -> int`` sets Numba's number and returns the one before.
    clock : callable
        Returns seconds.
    """

    def __init__(self, function, exchange, clock=time.perf_counter):
        self._function, self._exchange, self._clock = function, exchange, clock
        self._choices, self._is_compiled = {}, False

    def __call__(self, *inputs):
        """Return what the function returns."""
        with _ONE_CALL:
            most = self._exchange(1)
            try:
                size = inputs[0].size
                kind = most, size.bit_length()
                choice = self._choices.get(kind) or self._choices.setdefault(kind, Choice(most))
                self._exchange(choice.n_threads)
                began = self._clock()
                outputs = self._function(*inputs)
                ended = self._clock()
            finally:
                self._exchange(most)
            if self._is_compiled:  # the first call compiles, or reads compiled code
                choice.learn(began, ended, size)
            self._is_compiled = True
            return outputs


class Choice:
    """The choice of a number of threads, from the time of the calls.

    A comparison has two slices of calls with the present number, and two with the next smaller or
    larger one. They take turns, and the first slice has just ended. A larger number wins if both
    its slices are faster than the others. A smaller number wins if one of its slices is, because
    threads that wait for a busy core lose most. The comparison ends when its answer is certain.

    A comparison begins every few seconds, and at once if calls have become slow. After a win the
    next one begins at once, in the same direction. But the cost of the last one must be a small
    share of the time that calls have taken since.

    Parameters
    ----------
    most : int
        A call uses at most so many threads. The first calls use as many.

    Attributes
    ----------
    n_threads : int
        Threads for the next call.
    """

    def __init__(self, most):
        powers = {2**k for k in range(most.bit_length())}
        self._numbers = sorted(powers | {max(1, most - 1), most})
        self._present, self._other = len(self._numbers) - 1, None  # indices; None: no comparison
        self._direction = -1
        self._paces, self._other_paces = [], []  # seconds for a unit of work, one for each slice
        self._expected = None  # pace of the present number in the last comparison
        self._seconds, self._work = 0.0, 0  # of the present slice
        self._trial_seconds, self._trial_work = 0.0, 0  # of the present comparison
        self._cost, self._since, self._compared = 0.0, 0.0, -math.inf  # of the last comparison
        self.n_threads = most

    def learn(self, began, ended, work):
        """Learn from a call: its beginning and end in seconds, and the amount of its work."""
        self._seconds += ended - began
        self._work += work
        if self._seconds >= SLICE_SECONDS:
            seconds, work = self._seconds, max(1, self._work)
            self._seconds, self._work = 0.0, 0
            self._end_slice(seconds, work, ended)

    def _end_slice(self, seconds, work, now):
        pace = seconds / work
        if self._other is None:
            self._since += seconds
            if self._is_due(pace, now):
                self._begin(pace)
            return
        self._trial_seconds += seconds
        self._trial_work += work
        is_other = self.n_threads == self._numbers[self._other]
        (self._other_paces if is_other else self._paces).append(pace)
        other_wins = _verdict(self._paces, self._other_paces, self._other > self._present)
        if other_wins is None:
            self.n_threads = self._numbers[self._present if is_other else self._other]
        else:
            self._end(other_wins, now)

    def _is_due(self, pace, now):
        if len(self._numbers) == 1 or self._since < self._cost / LARGEST_COST:
            return False
        return self._is_cliff(pace) or now - self._compared >= SECONDS_BETWEEN_COMPARISONS

    def _is_cliff(self, pace):
        return self._expected is not None and pace > CLIFF * self._expected

    def _begin(self, pace):
        """Begin a comparison; if calls have become slow, with fewer threads, if possible."""
        direction = -1 if self._is_cliff(pace) else self._direction
        if not 0 <= self._present + direction < len(self._numbers):
            direction = -direction
        self._direction, self._other = direction, self._present + direction
        self._paces, self._other_paces = [pace], []
        self._trial_seconds, self._trial_work = 0.0, 0
        self.n_threads = self._numbers[self._other]

    def _end(self, other_wins, now):
        """End a comparison, and use the number that has won."""
        best = min(self._paces + self._other_paces)
        self._cost, self._since = self._trial_seconds - best * self._trial_work, 0.0
        self._compared = now
        if other_wins:
            self._present, self._expected = self._other, min(self._other_paces)
            if 0 <= self._present + self._direction < len(self._numbers):
                self._cost, self._compared = 0.0, -math.inf
        else:
            self._direction, self._expected = -self._direction, min(self._paces)
        self._other, self.n_threads = None, self._numbers[self._present]


def _verdict(paces, other_paces, is_larger):
    """Return whether the other number of threads has won, or None while that is not certain."""
    if len(paces) == 1:
        return False if other_paces[0] > CLIFF * paces[0] else None
    goal = GAIN * min(paces)
    if is_larger and max(other_paces) >= goal:
        return False
    if not is_larger and min(other_paces) < goal:
        return True
    return is_larger if len(other_paces) == 2 else None
