"""Section 4's block dropout, and the time that it saves: settings, plan, and table.

There are forward passes for several images and for a single one. A block of instances shares its
masks, or each instance has masks of its own, over single units or over groups of 16. There are
training steps whose mini-batch is one block, and steps by instances. Speed-ups are over the dense
network without masks and policies, computed in the fastest way on the machine.
"""

import itertools

import numpy as np

from speed import ours, training
from speed.notes import describe, listed, markdown
from speed.table import LABELS, OURS, Setting
from speed.turns import Plan

FIGURES = "block_speedup"

RATES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.25, 0.50, 1.0)
TURNS = 15

N_IMAGES = 1024
MOST_CALLS = 100
"""In a turn, each with images of its own."""

UNITS, RANK = ours.UNITS_IN_A_LINE, 16
"""In a group, whose float32 weights fill a line of the cache; and of policies of low rank."""


def kind(batch_size, instances=1, units=1, rank=0):
    """Return the fields of a `Setting` that say how many images, and who shares a mask."""
    return {
        "batch_size": batch_size, "instances_per_block": instances, "units_per_block": units,
        "policy_rank": rank,
    }  # fmt: skip


BLOCKS = tuple(kind(N_IMAGES, n) for n in (8, 32, 128))
_, BLOCKS_OF_32, _ = BLOCKS  # the paper's; its break-even rate is marked in the figure
SINGLE_UNITS, GROUPS = kind(N_IMAGES), kind(N_IMAGES, units=UNITS)
LOW_RANK = kind(N_IMAGES, rank=RANK)
ONE_IMAGE, ONE_IMAGE_IN_GROUPS = kind(1), kind(1, units=UNITS)
INSTANCES, ONE = (SINGLE_UNITS, LOW_RANK, GROUPS), (ONE_IMAGE, ONE_IMAGE_IN_GROUPS)
"""Kinds of forward passes; masks for each of many images, and for a single one."""

STEP_SIZE, STEP_RATE = 20, 0.15
"""Of the training steps."""
STEPS = {
    "block steps": kind(STEP_SIZE, STEP_SIZE),
    "instance steps": kind(STEP_SIZE, units=UNITS),
}
"""The processes of training steps."""

DENSE = {"forward": ("dense", "blas"), "step": (OURS, "scan")}
"""The dense ways. In each setting the fastest of them is the reference."""

COLUMNS = ((0.15, False), (0.15, True), (0.05, False), (0.05, True))
"""Of the tables: the rate of active units, and whether the policy's time is counted."""
NO_AIM = None
TARGETS = (
    (BLOCKS_OF_32, (500,), (5, 4, 10, NO_AIM)),
    (BLOCKS_OF_32, (800, 800), (9, 7, 18, NO_AIM)),
    (BLOCKS_OF_32, (4096, 4096), (14, 10, NO_AIM, NO_AIM)),
    (GROUPS, (800, 800), (7, 5, 18, 10)),
    (GROUPS, (4096, 4096), (5, 4.5, 14, 11)),
    (LOW_RANK, (800, 800), (2.5, 2, 5, 3.5)),
    (ONE_IMAGE, (800, 800), (5, NO_AIM, NO_AIM, NO_AIM)),
    (ONE_IMAGE_IN_GROUPS, (800, 800), (5, 3, 6, 3.5)),
)
"""Kind, hidden widths, and the speed-ups that were aimed at in `COLUMNS`."""
STEP_TARGET = "3 by blocks, policy not counted, and 2.2 by instances, policy counted"

NEVER, ALWAYS = 0.0, np.inf
"""What `break_even` returns when no rate pays, or every one."""


def settings(nets, threads, quick=False):
    """Yield all settings; `quick` takes less of each kind."""
    kinds = (BLOCKS_OF_32, GROUPS, ONE_IMAGE_IN_GROUPS) if quick else (*BLOCKS, *INSTANCES, *ONE)
    for n_threads, net in itertools.product(threads, nets):
        for fields in kinds:
            yield Setting("forward", n_threads, net, **fields)
        for fields in STEPS.values():
            yield Setting("step", n_threads, net, **fields)


def plan(setting, data):
    """Return the `Plan` of a setting; `data` is a `datasets.Dataset`."""
    step, dense = setting.work == "step", DENSE[setting.work]
    if step:
        (sparse,) = (name for name, own in STEPS.items() if own.items() <= vars(setting).items())
        options = {"learning_rate": training.learning_rate(setting)}
        rates, workers = (STEP_RATE,), dict.fromkeys((*dense, sparse), options)
        inputs = training.inputs(setting, data, training.STEPS_A_TURN[1], rate=None)
    else:
        rates, sparse = RATES, "blocks"
        names = "instances_per_block", "units_per_block", "policy_rank"
        options = {name: getattr(setting, name) for name in names}
        workers = dict.fromkeys(dense, {}) | {sparse: options}
        inputs = ours.initial_parameters(setting.n_units, data.n_in, data.n_classes)
        inputs |= {"x": batches(setting, data.test.images)}
    columns = {
        column(rate, counted): (sparse, {"rate": rate, "counted": counted})
        for counted in (False, True)
        for rate in rates
    }
    return Plan(workers, {name: (name, {}) for name in dense} | columns, inputs, learns=step)


def batches(setting, images):
    """Return different images for each call of a turn, (n_calls, n_images, n_in)."""
    most = min(MOST_CALLS, len(images) // setting.batch_size)
    n_calls = int(np.clip(training.FLOPS_A_TURN / setting.flops(), 1, most))
    return images[: n_calls * setting.batch_size].reshape(n_calls, setting.batch_size, -1)


def column(rate, counted):
    """Return the name of the sparse column at a rate, with policies or with given masks."""
    return f"{'counted' if counted else 'given'} {rate:g}"


def rates(measurement):
    """Return the rates that were measured, rising."""
    names = (name.split() for name in measurement.columns)
    return np.array(sorted(float(name[1]) for name in names if name[0] == "given"))


def reference(measurement):
    """Return the dense way that is the fastest here, the reference of every speed-up."""
    return measurement.fastest(DENSE[measurement.setting.work])


def speedup(measurement, rate, counted):
    """Return the dense time divided by the sparse one, the median of the rounds."""
    return np.median(measurement.ratios(reference(measurement), column(rate, counted)))


def speedups(measurement, counted):
    """Return the speed-ups at all rates, (n_rates,)."""
    return np.array([speedup(measurement, rate, counted) for rate in rates(measurement)])


def break_even(rates, speedups):
    """Return the highest rate at which the speed-up is 1, interpolated by a power law.

    Rates, rising, and speed-ups are arrays (n_rates,). Returns `ALWAYS` if the highest rate still
    pays, and `NEVER` if none does.
    """
    paying = np.flatnonzero(speedups >= 1)
    if paying.size == 0:
        return NEVER
    last = paying[-1]
    if last == len(rates) - 1:
        return ALWAYS
    x, y = np.log(rates[last : last + 2]), np.log(speedups[last : last + 2])
    return float(np.exp(x[0] - y[0] * (x[1] - x[0]) / (y[1] - y[0])))


def describe_break_even(rate):
    """Say a rate of `break_even` in words."""
    return {NEVER: "never", ALWAYS: "always"}.get(
        rate, f"{rate:.2%}" if rate < 0.02 else f"{rate:.0%}"
    )


def flop_bound(setting, rates):
    """Return the ratio of all multiplications to those of active units, (n_rates,)."""
    sizes, _ = setting.n_weights()
    # Between two hidden layers both sides are sparse; the images and the classes are not.
    sides = np.array([1, *[2] * (len(sizes) - 2), 1])
    return sum(sizes) / (sizes * np.asarray(rates)[:, None] ** sides).sum(axis=1)


def describe_kind(kind):
    """Say who shares a mask in a `kind`."""
    who, n = "single units", kind["instances_per_block"]
    if n > 1:
        who = f"blocks of {n}"
    elif kind["units_per_block"] > 1:
        who = f"groups of {kind['units_per_block']}"
    return who + f", policies of rank {kind['policy_rank']}" * (kind["policy_rank"] > 0)


def table(results):
    """Set targets, speed-ups and break-even rates in Markdown."""
    parts = [
        "Speed-up of a forward pass over the dense network (median of the ratios in each round of "
        "turns), and what was aimed at. +p: the policy's own time is counted. Flop bound: of 15%.",
        markdown(_targets(results)),
        "All kinds. Break-even: the highest rate of active units at which the pass is no slower "
        "than the dense network.",
        markdown(_speedups(results)),
        f"Speed-up of a training step over the dense network's, a mini-batch of {STEP_SIZE}, "
        f"{STEP_RATE:.0%} active; aimed at for 784-800-800-10: {STEP_TARGET}.",
        markdown(_steps(results)),
        listed([*_notes(results), *describe(results)]),
    ]
    return "\n\n".join(parts) + "\n"


def _heads():
    return [f"{rate:.0%}{' +p' * counted}" for rate, counted in COLUMNS]


def _targets(results):
    rows = [["threads", "network", "masks", "images at once", "flop bound", *_heads()]]
    for fields, n_units, aims in TARGETS:
        for found in results.all(work="forward", n_units=n_units, **fields):
            each = zip(COLUMNS, aims, strict=True)
            rows.append(
                [
                    str(found.setting.n_threads),
                    found.setting.net,
                    describe_kind(vars(found.setting)),
                ]
                + [str(found.setting.batch_size)]
                + [f"{flop_bound(found.setting, [COLUMNS[0][0]])[0]:.1f}"]
                + [_compared(speedup(found, *column), aim) for column, aim in each]
            )
    return rows


def _compared(found, aim):
    if aim is NO_AIM:
        return f"{found:.1f}"
    return f"{found:.1f} of {aim}, {'met' if found >= aim else 'not met'}"


def _speedups(results):
    rows = [
        ["threads", "network", "masks", "images at once", "dense, µs an image", "dense by"]
        + ["dense / bound", *_heads(), "break-even", "break-even +p"]
    ]
    for found in results.all(work="forward"):
        setting, dense = found.setting, reference(found)
        rows.append(
            [
                str(setting.n_threads),
                setting.net,
                describe_kind(vars(setting)),
                str(setting.batch_size),
            ]
            + [f"{found.median(dense) / setting.batch_size:.3g}"]
            + [LABELS[dense], f"{found.median(dense) / results.bound(setting):.2f}"]
            + [f"{speedup(found, *column):.2f}" for column in COLUMNS]
            + [
                describe_break_even(break_even(rates(found), speedups(found, counted)))
                for counted in (False, True)
            ]
        )
    return rows


def _steps(results):
    rows = [["threads", "network", "masks", "dense, µs a step", "dense by"]]
    rows[0] += ["speed-up", "speed-up +p"]
    for found in results.all(work="step"):
        setting, dense = found.setting, reference(found)
        rows.append(
            [str(setting.n_threads), setting.net, describe_kind(vars(setting))]
            + [f"{found.median(dense):.0f}", LABELS[dense]]
            + [f"{speedup(found, STEP_RATE, counted):.2f}" for counted in (False, True)]
        )
    return rows


def _notes(results):
    off = [
        abs(found.columns[column(rate, True)].last[0] / rate - 1)
        for found in results.all(work="forward")
        for rate in rates(found)
    ]
    return [
        "Dense: the network without masks and policies, on the same images, by our own kernels "
        "(which skip zero pixels where that is faster) or by BLAS, whichever is faster there, and "
        "a training step also by JAX. Every call has other images and other masks.",
        "The flop bound is the dense network's multiplications over those between active units. "
        "A pixel that is 0 in all images of a block is skipped, too, so it can be beaten.",
        "The bound of the dense network is its products at the machine's peak, or its weights' way "
        "through main memory, whichever is longer.",
        f"Policies draw from their initial Z, o set for the rate: within {max(off, default=0):.0%} "
        "of it (at 100% sigma is 1 in float32).",
    ]
