"""Reproduce section 4's block dropout: the speed-up of a forward pass that skips dropped units.

Times MNIST's test images from pixels to logits in networks with their initial parameters: dense, by
this package's own best backend, which is 1; by blocks of instances that share their masks, the
masks given, at several rates of active units; the same with the policies that draw them; all that
for a single image, too; and a training step whose mini-batch of 20 is one block. What is compared
takes turns in one process.

Writes figures/block_speedup.md, .png and .pdf, and reproduce/results/block_speedup.hdf5. A run with
fewer nets, blocks, rates or threads than the full one, which takes about ten minutes, writes to
folders named quick.
"""

import argparse
import itertools
import sys
from pathlib import Path

import common
import numpy as np
from block_speed import forward, training
from block_speed import results as files
from block_speed.figure import TARGET_BLOCK, figure
from block_speed.results import describe_break_even
from speed.results import net_name
from training_speed import (
    NETS,
    THREADS,
    describe_origin,
    markdown,
    positive_number,
    refuse_too_many_threads,
    widths,
)

from reinforce_dropout import backends, datasets, provenance

BLOCKS = (1, 8, 32, 128)
RATES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.25, 0.50, 1.0)
TURNS = 15

QUICK_NETS = NETS[:2]
QUICK_BLOCKS = (1, 32)
QUICK_RATES = (0.05, 0.15, 0.50)
QUICK_TURNS = 3

TARGET_THREADS = 2
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

TRAINING_NETS = NETS[:2]
TRAINING_TARGET = ((800, 800), False, 3)
"""Hidden widths, whether the policy is counted, speed-up."""

TABLE_RATES = (0.15, 0.05)


def parse(arguments=None):
    """Return the options; ``quick`` says whether this is not the full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"less of everything, {QUICK_TURNS} turns"
    )
    parser.add_argument("--redraw", action="store_true", help="from the file, without timing")
    parser.add_argument(
        "--nets", nargs="+", type=widths, metavar="WIDTHS",
        help="widths of hidden layers, as in 500 800-800 4096-4096 (the default)",
    )  # fmt: skip
    parser.add_argument(
        "--blocks", nargs="+", type=positive_number, metavar="N",
        help="instances that share their masks (default 1 8 32 128)",
    )  # fmt: skip
    parser.add_argument(
        "--rates", nargs="+", type=percentage, metavar="PERCENT",
        help="active units (default 1 2 5 10 15 25 50 100)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", nargs="+", type=positive_number, default=THREADS, metavar="N",
        help="of the linear algebra and of the blocks (default 1 2)",
    )  # fmt: skip
    parser.add_argument(
        "--turns", type=positive_number, metavar="N",
        help=f"at most, fewer where a pass takes long (default {TURNS})",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, default=common.ROOT, help=argparse.SUPPRESS)
    parser.set_defaults(seed=common.RECORDED_SEED)
    options = parser.parse_args(arguments)
    quick = options.quick
    options.nets = tuple(options.nets or (QUICK_NETS if quick else NETS))
    options.blocks = tuple(options.blocks or (QUICK_BLOCKS if quick else BLOCKS))
    options.rates = tuple(options.rates or (QUICK_RATES if quick else RATES))
    options.turns = options.turns or (QUICK_TURNS if quick else TURNS)
    full = {"nets": NETS, "blocks": BLOCKS, "rates": RATES, "threads": THREADS}
    options.quick = quick or any(not {*all_} <= {*vars(options)[k]} for k, all_ in full.items())
    return options


def percentage(text):
    """Read a percentage greater than 0 and at most 100 as a fraction."""
    if not 0 < (value := float(text)) <= 100:
        raise ValueError
    return value / 100


def table(results):
    """Set targets, speed-ups and break-even rates in Markdown.

    Parameters
    ----------
    results : results.Results

    Returns
    -------
    str
    """
    parts = []
    if len(targets := _targets(results)) > 1:
        parts += [
            "Speed-up of a forward pass over the dense network (median of all turns' ratios), "
            f"{TARGET_THREADS} threads, blocks of {TARGET_BLOCK} instances, and what was aimed at:",
            markdown(targets),
        ]
    parts += [
        "All block sizes; +p: the policy's own time is counted. Break-even: the highest rate of "
        "active units at which blocks are no slower than the dense network.",
        markdown(_speedups(results)),
        f"Speed-up of a training step over the dense network's, a mini-batch of "
        f"{training.BATCH_SIZE} as one block, {training.RATE:.0%} active; aimed at: "
        f"{TRAINING_TARGET[-1]} for {net_name(TRAINING_TARGET[0])}, policy not counted.",
        markdown(_training(results)),
        "\n".join(f"- {note}" for note in _notes(results)),
    ]
    return "\n\n".join(parts) + "\n"


def _targets(results):
    rows = [["network", "images at once", "active", "policy", "flop bound", "target", "speed-up"]]
    for n_units, single, rate, policy, target in TARGETS:
        found = results.find(TARGET_THREADS, n_units, 1 if single else TARGET_BLOCK, single)
        speedup = found.speedup(rate, policy) if found else None
        if speedup is None:
            continue
        (bound,) = files.flop_bound(n_units, [rate])
        rows.append(
            [found.setting.net, str(found.setting.n_images), f"{rate:.0%}"]
            + ["counted" if policy else "not counted", f"{bound:.1f}", str(target)]
            + [f"{speedup:.1f}, {'met' if speedup >= target else 'not met'}"]
        )
    return rows


def _speedups(results):
    counted = (False, True)
    rows = [
        ["threads", "network", "masks for", "images at once", "dense, µs an image"]
        + [f"{rate:.0%}{' +p' * policy}" for rate in TABLE_RATES for policy in counted]
        + [f"break-even{' +p' * policy}" for policy in counted]
    ]
    for found in results.forward:
        setting = found.setting
        speedups = [found.speedup(rate, policy) for rate in TABLE_RATES for policy in counted]
        rows.append(
            [str(setting.n_threads), setting.net, setting.blocks, str(setting.n_images)]
            + [f"{1e6 * np.median(found.dense) / setting.n_images:.3g}"]
            + ["-" if speedup is None else f"{speedup:.2f}" for speedup in speedups]
            + [describe_break_even(found.break_even(policy)) for policy in counted]
        )
    return rows


def _training(results):
    rows = [["threads", "network", "dense, µs a step", "speed-up", "speed-up +p"]]
    for found in results.training:
        rows.append(
            [str(found.n_threads), net_name(found.n_units), f"{1e6 * np.median(found.dense):.0f}"]
            + [f"{found.speedup(policy):.1f}" for policy in (False, True)]
        )
    return rows


def _notes(results):
    found = results.forward
    off = max(np.abs(f.active / f.rates - 1).max() for f in found)
    spread = np.percentile(list(itertools.chain.from_iterable(f.spread() for f in found)), 90)
    turns = sorted({len(f.dense) for f in found})
    return [
        "Dense: the network without masks and policies, on the same images. Each call for a single "
        "image has another image and other masks.",
        "The flop bound is the dense network's multiplications over those between active units. "
        "A pixel that is 0 in all images of a block is skipped, too, so it can be beaten.",
        f"Policies draw from their initial Z, o set for the rate: within {off:.0%} of it (at 100% "
        "sigma is 1 in float32).",
        f"Medians of {turns[0]} to {turns[-1]} turns; the middle half of the times lies "
        f"within {spread:.0%} of their median in nine of ten columns.",
        f"Backend {results.attributes['backend']}; {describe_origin(results.attributes)}",
    ]


def redraw(path, folder):
    """Write table and figure of the results at `path` into `folder`; nothing is timed.

    Returns
    -------
    str
        The table.

    Raises
    ------
    ReinforceDropoutError
        There are no results at `path`, or `folder` cannot be written in.
    """
    results = files.read(path)
    return common.write_drawn(folder, "block_speedup", table(results), figure(results))


def measure_into(path, options):
    """Time what the options name, and write it to `path`."""
    refuse_too_many_threads(options.threads)
    started = provenance.now()
    data = datasets.load()
    passes = forward.measure(
        data, options.nets, options.blocks, options.rates, options.threads, options.turns
    )
    nets = [net for net in options.nets if net in TRAINING_NETS]
    steps = training.measure(data, nets, options.threads, options.turns)
    facts = provenance.collect(["python", "reproduce/block_speedup.py", *sys.argv[1:]])
    facts |= {"backend": backends.resolve("auto"), "started": started, "ended": provenance.now()}
    files.write(path, files.Results(facts, passes, steps))


def run(options):
    """Measure unless told not to, then write table and figure, and print the table."""
    common.benchmark(options, "block_speedup", lambda path: measure_into(path, options), redraw)


def main():
    """Run, and tell what went wrong in a sentence; return the exit code."""
    return common.guard(lambda: run(parse()), "Interrupted: nothing is written.")


if __name__ == "__main__":
    sys.exit(main())
