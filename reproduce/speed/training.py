"""The time of a training step beside PyTorch and JAX: settings, plan, and table."""

import itertools

import numpy as np

from speed import ours
from speed.notes import describe, listed, markdown
from speed.table import LABELS, OURS, PEERS, Setting
from speed.turns import Plan

FIGURES = "training_speed"

BATCH_SIZES = (20, 128)
TURNS = 31

FLOPS_A_TURN = 1e10
STEPS_A_TURN = (2, 50)
"""At least and at most. They are few, so one slow spell of the machine affects all columns."""

INITIAL_RATE = 0.3
"""The fraction of active units that the paper's networks reach. This package skips masked units. So
at the 12 % with which training begins, it would look better than it is."""

TARGET_THREADS, TARGET_BATCH_SIZE = 2, 20
TARGETS = (
    ("best peer", 0.8, ((500,), (800, 800)), (False, True)),
    ("PyTorch eager", 0.25, ((500,), (800, 800)), (True,)),
    ("bound", 2.5, ((800, 800),), (False, True)),
)
"""What our time is compared with, the ratio to reach, and in which networks, with policies or
without."""


def settings(nets, threads, quick=False):
    """Yield all settings; `quick` takes less of each kind."""
    batch_sizes = BATCH_SIZES[:1] if quick else BATCH_SIZES
    for kind in itertools.product(threads, nets, batch_sizes, (False, True)):
        yield Setting("step", *kind)


def plan(setting, data):
    """Return the `Plan` of a setting; `data` is a `datasets.Dataset`."""
    n_steps = int(np.clip(FLOPS_A_TURN / setting.flops(), *STEPS_A_TURN))
    columns = (OURS, "c", "jax", *PEERS)
    return Plan(
        workers=dict.fromkeys(columns, {"learning_rate": learning_rate(setting)}),
        columns={column: (column, {}) for column in columns},
        inputs=inputs(setting, data, n_steps, INITIAL_RATE if setting.policy else None),
        learns=True,
    )


def inputs(setting, data, n_steps, rate):
    """Return mini-batches and initial parameters by name, the same for every column."""
    parameters = ours.initial_parameters(setting.n_units, data.n_in, data.n_classes, rate)
    shape = n_steps, setting.batch_size
    x, y = (a[: np.prod(shape)] for a in (data.train.images, data.train.labels))
    return parameters | {"x": x.reshape(*shape, -1), "y": y.reshape(shape)}


def learning_rate(setting):
    """Return the paper's rate, or less if the loss sums more than the paper's 20 examples."""
    return 0.01 * min(1, 20 / setting.batch_size)


def ratios(results, measurement, to):
    """Return the ratios of our default backend's times to others, round by round, (n_turns,).

    `to` is "best peer", "PyTorch eager" or "bound". None if it was not measured.
    """
    if to == "bound":
        return measurement.columns[OURS].microseconds / results.bound(measurement.setting)
    other = measurement.fastest(PEERS if to == "best peer" else ("eager",))
    return None if other is None else measurement.ratios(OURS, other)


def table(results):
    """Set the columns' times, their ratios, and the targets in Markdown."""
    parts = [
        "Microseconds a training step (medians of the turns), and ratios of this package's "
        f"default, {LABELS[OURS]} (medians of the ratios in each round of turns):",
        markdown(_times(results)),
        "The bound is the time of the step's dense products at the machine's peak of arithmetic, "
        "or of its weights (read, read, written) at the bandwidth of main memory, whichever is "
        "longer. Skipping zeros, or weights that stay in the caches, can beat it.",
        listed([_describe_activity(results), *describe(results)]),
        "Most memory of a process over all settings, MB:",
        markdown(_memory(results)),
    ]
    if targets := describe_targets(results):
        parts += [
            f"Targets ({TARGET_THREADS} threads, mini-batches of {TARGET_BATCH_SIZE}; in brackets "
            "the middle half of the rounds):",
            listed(targets),
        ]
    return "\n\n".join(parts) + "\n"


def describe_targets(results):
    """Return a line for each target whose setting was measured, met or not."""
    lines = []
    for measurement in results.all(n_threads=TARGET_THREADS, batch_size=TARGET_BATCH_SIZE):
        setting = measurement.setting
        for to, target, nets, policy in TARGETS:
            if setting.n_units not in nets or setting.policy not in policy:
                continue
            if (found := ratios(results, measurement, to)) is None:
                continue
            low, median, high = np.percentile(found, (25, 50, 75))
            lines.append(
                f"{setting.net}, {setting.policies}: this package / {to} = {median:.2f} "
                f"({low:.2f} to {high:.2f}), target {target}: "
                f"{'met' if median <= target else 'not met'}"
            )
    return lines


def columns_of(results):
    """Return the columns that were measured in any setting."""
    return [c for c in LABELS if any(c in m.columns for m in results.measurements)]


def _times(results):
    others, columns = ("best peer", "PyTorch eager", "bound"), columns_of(results)
    rows = [
        ["threads", "network", "mini-batch", "step", *(LABELS[c] for c in columns), "bound"]
        + [f"ours / {to}" for to in others]
    ]
    for measurement in results.measurements:
        setting = measurement.setting
        found = [ratios(results, measurement, to) for to in others]
        rows.append(
            [str(setting.n_threads), setting.net, str(setting.batch_size), setting.policies]
            + [f"{measurement.median(c):.0f}" if c in measurement.columns else "-" for c in columns]
            + [f"{results.bound(setting):.0f}"]
            + ["-" if values is None else f"{np.median(values):.2f}" for values in found]
        )
    return rows


def _memory(results):
    columns = columns_of(results)
    rows = [["threads", *(LABELS[c] for c in columns)]]
    for n_threads in results.values("n_threads"):
        found = [m.columns for m in results.all(n_threads=n_threads)]
        peaks = [max((f[c].peak_bytes for f in found if c in f), default=0) for c in columns]
        rows.append([str(n_threads), *(f"{n / 1e6:.0f}" if n else "-" for n in peaks)])
    return rows


def _describe_activity(results):
    rates = [
        np.mean(measurement.columns[column].last[1 : 1 + len(measurement.setting.n_units)])
        for measurement in results.all(policy=True)
        for column in LABELS.keys() & measurement.columns.keys()
    ]
    active = f"{min(rates):.0%} to {max(rates):.0%} were active" if rates else "nothing was masked"
    return f"Initial parameters with {INITIAL_RATE:.0%} active units; in the last turns {active}."
