"""Section 4's block dropout, and the time that it saves: settings, plan, and table.

There are forward passes by blocks of instances that share their masks, for several images and for a
single one. There are training steps whose mini-batch is one block, and steps by instances, which
have masks of their own over groups of 16 units. Speed-ups are over the dense network without masks
and policies, computed in the fastest way on the machine.
"""

import itertools

import numpy as np

from speed import ours, training
from speed.notes import describe, listed, markdown
from speed.table import LABELS, OURS, Setting
from speed.turns import Plan

FIGURES = "block_speedup"

BLOCKS = (1, 8, 32, 128)
RATES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.25, 0.50, 1.0)
TURNS = 15

N_IMAGES = 1024
N_IMAGES_SINGLY = 256
"""For blocks of 1, which take longest, because they read the weights again for every image."""
MOST_CALLS = 100
"""In a turn, each with images of its own."""

STEP_SIZE, STEP_RATE = 20, 0.15
"""Of the training steps."""
STEPS = {
    STEP_SIZE: ("block steps", "one block"),
    1: ("instance steps", f"instances, groups of {ours.UNITS_IN_A_LINE} units"),
}
"""Process of the training steps by instances in a block, and who shares a mask."""

DENSE = {"forward": ("dense", "blas"), "step": (OURS, "scan")}
"""The dense ways. In each setting the fastest of them is the reference."""

TARGET_THREADS, TARGET_BLOCK = 2, 32
"""The paper's block size; its break-even rate is marked in the figure."""
TARGETS = (
    ((500,), False, 0.15, False, 5),
    ((500,), False, 0.15, True, 4),
    ((500,), False, 0.05, False, 10),
    ((800, 800), False, 0.15, False, 9),
    ((800, 800), False, 0.15, True, 7),
    ((800, 800), False, 0.05, False, 18),
    ((4096, 4096), False, 0.15, False, 14),
    ((4096, 4096), False, 0.15, True, 10),
    ((800, 800), True, 0.15, False, 5),
)
"""Hidden widths, whether for a single image, rate, whether the policy is counted, speed-up."""
STEP_TARGET = "3 by blocks, policy not counted, and 2.2 by instances, policy counted"

TABLE_RATES = (0.15, 0.05)

NEVER, ALWAYS = 0.0, np.inf
"""What `break_even` returns when no rate pays, or every one."""


def settings(nets, threads, quick=False):
    """Yield all settings; `quick` takes less of each kind."""
    blocks = (TARGET_BLOCK,) if quick else BLOCKS
    kinds = [(N_IMAGES if n > 1 else N_IMAGES_SINGLY, n) for n in blocks] + [(1, 1)]
    for n_threads, net in itertools.product(threads, nets):
        for n_images, block in kinds:
            yield Setting("forward", n_threads, net, n_images, instances_per_block=block)
        for block in STEPS:
            yield Setting("step", n_threads, net, STEP_SIZE, instances_per_block=block)


def plan(setting, data):
    """Return the `Plan` of a setting; `data` is a `datasets.Dataset`."""
    step = setting.work == "step"
    rates, blocks, dense = RATES, "blocks", DENSE[setting.work]
    if step:
        rates, (blocks, _) = (STEP_RATE,), STEPS[setting.instances_per_block]
    sparse = {
        column(rate, counted): (blocks, {"rate": rate, "counted": counted})
        for counted in (False, True)
        for rate in rates
    }
    if step:
        options = {"learning_rate": training.learning_rate(setting)}
        workers = dict.fromkeys((*dense, blocks), options)
        inputs = training.inputs(setting, data, training.STEPS_A_TURN[1], rate=None)
    else:
        workers = dict.fromkeys(dense, {})
        workers |= {blocks: {"instances_per_block": setting.instances_per_block}}
        inputs = ours.initial_parameters(setting.n_units, data.n_in, data.n_classes, STEP_RATE)
        inputs |= {"x": batches(setting, data.test.images)}
    return Plan(workers, {name: (name, {}) for name in dense} | sparse, inputs, learns=step)


def batches(setting, images):
    """Return different images for each call of a turn, (n_calls, n_images, n_in)."""
    most = min(MOST_CALLS, len(images) // setting.batch_size)
    n_calls = int(np.clip(training.FLOPS_A_TURN / setting.flops(), 1, most))
    return images[: n_calls * setting.batch_size].reshape(n_calls, setting.batch_size, -1)


def column(rate, counted):
    """Return the name of the column by blocks at a rate, with policies or with given masks."""
    return f"{'counted' if counted else 'given'} {rate:g}"


def rates(measurement):
    """Return the rates that were measured, rising."""
    names = (name.split() for name in measurement.columns)
    return np.array(sorted(float(name[1]) for name in names if name[0] == "given"))


def reference(measurement):
    """Return the dense way that is the fastest here, the reference of every speed-up."""
    return measurement.fastest(DENSE[measurement.setting.work])


def speedup(measurement, rate, counted):
    """Return the dense time divided by that by blocks, the median of the rounds."""
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


def table(results):
    """Set targets, speed-ups and break-even rates in Markdown."""
    parts = []
    if len(targets := _targets(results)) > 1:
        parts += [
            "Speed-up of a forward pass over the dense network (median of the ratios in each round "
            f"of turns), {TARGET_THREADS} threads, blocks of {TARGET_BLOCK} instances, and what "
            "was aimed at:",
            markdown(targets),
        ]
    parts += [
        "All block sizes; +p: the policy's own time is counted. Break-even: the highest rate of "
        "active units at which blocks are no slower than the dense network.",
        markdown(_speedups(results)),
        f"Speed-up of a training step over the dense network's, a mini-batch of {STEP_SIZE}, "
        f"{STEP_RATE:.0%} active; aimed at for 784-800-800-10: {STEP_TARGET}.",
        markdown(_steps(results)),
        listed([*_notes(results), *describe(results)]),
    ]
    return "\n\n".join(parts) + "\n"


def _targets(results):
    rows = [["network", "images at once", "active", "policy", "flop bound", "target", "speed-up"]]
    for n_units, single, rate, counted, target in TARGETS:
        kind = {"batch_size": 1} if single else {"instances_per_block": TARGET_BLOCK}
        kind |= {"work": "forward", "n_threads": TARGET_THREADS, "n_units": n_units}
        for measured in results.all(**kind):
            setting, found = measured.setting, speedup(measured, rate, counted)
            rows.append(
                [setting.net, str(setting.batch_size), f"{rate:.0%}"]
                + ["counted" if counted else "not counted"]
                + [f"{flop_bound(setting, [rate])[0]:.1f}", str(target)]
                + [f"{found:.1f}, {'met' if found >= target else 'not met'}"]
            )
    return rows


def _speedups(results):
    each = list(itertools.product(TABLE_RATES, (False, True)))
    rows = [
        ["threads", "network", "masks for", "images at once", "dense, µs an image", "dense by"]
        + ["dense / bound", *(f"{rate:.0%}{' +p' * counted}" for rate, counted in each)]
        + ["break-even", "break-even +p"]
    ]
    for found in results.all(work="forward"):
        setting, dense = found.setting, reference(found)
        single = setting.batch_size == 1
        rows.append(
            [str(setting.n_threads), setting.net]
            + ["a single image" if single else f"blocks of {setting.instances_per_block}"]
            + [str(setting.batch_size), f"{found.median(dense) / setting.batch_size:.3g}"]
            + [LABELS[dense], f"{found.median(dense) / results.bound(setting):.2f}"]
            + [f"{speedup(found, *kind):.2f}" for kind in each]
            + [
                describe_break_even(break_even(rates(found), speedups(found, counted)))
                for counted in (False, True)
            ]
        )
    return rows


def _steps(results):
    rows = [["threads", "network", "masks for", "dense, µs a step", "dense by"]]
    rows[0] += ["speed-up", "speed-up +p"]
    for found in results.all(work="step"):
        setting, dense = found.setting, reference(found)
        _, masks_for = STEPS[setting.instances_per_block]
        rows.append(
            [str(setting.n_threads), setting.net, masks_for]
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
