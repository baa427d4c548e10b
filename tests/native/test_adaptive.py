"""The number of threads that follows the load, with a clock that the tests move."""

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reinforce_dropout.native import adaptive


class Machine:
    """A fake clock, and calls that take the time given for the number of threads they use."""

    def __init__(self, seconds):
        self.seconds, self.now, self.n_threads, self.used = seconds, 0.0, max(seconds), []

    def exchange(self, n_threads):
        before, self.n_threads = self.n_threads, n_threads
        return before

    def work(self, x):
        seconds = self.seconds[self.n_threads]
        self.now += seconds() if callable(seconds) else seconds
        self.used.append(self.n_threads)
        return 2 * x

    def adaptive(self):
        return adaptive.Adaptive(self.work, self.exchange, lambda: self.now)

    def run(self, function, seconds):
        """Call for so long, and return the numbers of threads that the calls used."""
        self.used, until = [], self.now + seconds
        while self.now < until:
            assert (function(SHORT) == 2).all()
        return self.used


SHORT = np.ones(100)
QUIET, BUSY = {1: 1.5e-3, 2: 1e-3}, {1: 1.5e-3, 2: 20e-3}


def share(used, number):
    return used.count(number) / len(used)


def test_all_threads_are_used_on_a_quiet_machine_and_trials_cost_little():
    machine = Machine(QUIET)
    function = machine.adaptive()
    machine.run(function, 1)
    used = machine.run(function, 60)
    assert 1 in used
    assert sum(QUIET[n] for n in used) < 1.005 * len(used) * QUIET[2]


@pytest.mark.parametrize("quiet_before", [0, 0.3, 5])
def test_one_thread_is_used_as_soon_as_a_core_is_busy(quiet_before):
    machine = Machine(QUIET)
    function = machine.adaptive()
    machine.run(function, quiet_before)
    machine.seconds = BUSY
    assert machine.run(function, 0.5).count(2) <= 4
    used = machine.run(function, 60)
    assert 2 in used and sum(BUSY[n] for n in used) < 1.025 * len(used) * BUSY[1]


def test_all_threads_are_used_again_soon_after_the_load():
    machine = Machine(BUSY)
    function = machine.adaptive()
    assert share(machine.run(function, 10), 1) > 0.9
    machine.seconds = QUIET
    machine.run(function, 2.5)
    assert share(machine.run(function, 10), 2) > 0.9


def test_a_wait_in_some_of_the_calls_is_noticed():
    machine, calls = Machine(QUIET), itertools.count()
    function = machine.adaptive()
    machine.run(function, 3)
    machine.seconds = {1: 1.5e-3, 2: lambda: 10e-3 if next(calls) % 5 == 0 else 1e-3}
    machine.run(function, 1)
    assert share(machine.run(function, 10), 1) > 0.95


def test_rare_slow_calls_of_a_quiet_machine_change_little():
    machine, calls = Machine(QUIET), itertools.count()
    machine.seconds = {1: 1.5e-3, 2: lambda: 12e-3 if next(calls) % 100 == 0 else 1e-3}
    function = machine.adaptive()
    machine.run(function, 1)
    assert share(machine.run(function, 60), 2) > 0.95


@pytest.mark.parametrize("best", [1, 2, 4, 7, 8])
def test_the_best_of_many_numbers_is_found_from_any_other(best):
    def times(best):
        return {n: 1e-3 * (1 + abs(math.log2(n / best))) for n in range(1, 9)}

    machine = Machine(times(8))
    function = machine.adaptive()
    for other in (8, 1, 4):
        machine.seconds = times(other)
        machine.run(function, 15)
        assert share(machine.run(function, 10), other) > 0.9
        machine.seconds = times(best)
        machine.run(function, 15)
        assert share(machine.run(function, 10), best) > 0.9


def test_the_most_is_numbas_own_number_and_is_put_back():
    machine = Machine({1: 8e-3, 2: 4e-3, 3: 2e-3, 4: 1e-3})
    function = machine.adaptive()
    for most in (4, 2, 1, 3):
        machine.n_threads = most
        used = machine.run(function, 1)
        assert share(used, most) > 0.9 and max(used) == most
        assert machine.n_threads == most


def test_the_number_is_put_back_after_an_error():
    machine = Machine(QUIET)
    machine.seconds[2] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        machine.adaptive()(np.ones(1))
    assert machine.n_threads == 2


def test_large_and_small_calls_are_compared_with_their_like():
    machine = Machine({1: 1e-3, 2: 1e-3})
    used = {10: [], 1000: []}

    def work(x):
        # Threads pay for large calls only.
        machine.now += 1e-6 * len(x) / machine.n_threads + 1e-4 * machine.n_threads
        used[len(x)].append(machine.n_threads)

    function = adaptive.Adaptive(work, machine.exchange, lambda: machine.now)
    for _ in range(5000):
        function(np.ones(10))
        function(np.ones(1000))
    assert share(used[10], 1) > 0.95 and share(used[1000], 2) > 0.95


def test_python_threads_wait_for_each_other():
    inside, most_inside = [], []

    def work(x):
        inside.append(x)
        most_inside.append(len(inside))
        time.sleep(0.001)
        inside.pop()

    functions = [adaptive.Adaptive(work, lambda n: 2) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: functions[k % 2](np.ones(1)), range(40)))
    assert max(most_inside) == 1
