"""Reproduce the comparison of the systems that the paper names.

It trains the runs of reproduce/sweeps/systems.toml into runs/systems/, curves only. Then it trains
dasNet's networks and, with these frozen, dasNet itself, and keeps the models. Each pair classifies
the same test images: what only one of them gets wrong goes to runs/systems/paired.json, see
paired.py. Table and figure go to runs/figures/. Copy paired.json and the records to
reproduce/results/systems/ to record them.
"""

import again
import common
from evidence import runs, spread
from paired import wrong

from reinforce_dropout.running import datasets, grid

SEEDS = range(21, 24)


@again.command
def main(options):
    """Train, compare and draw."""

    def steer(folder, command):
        for planned in steered_and_frozen(folder):
            outcomes = again.train(planned, folder, options, command, curves_only=False)
            common.tell_failures(outcomes)
        test = datasets.load(options.data).test
        runs.write_measured(folder, "paired", command, {
            f"dasnet-seed{seed}": compare(
                *(folder / f"{name}-seed{seed}.hdf5" for name in ("dasnet", "dasnet-cnn")), test
            )
            for seed in SEEDS
        })  # fmt: skip

    again.run("systems", options, "systems.py", measure=steer)


def steered_and_frozen(folder):
    """Return two lists of runs: the networks, and the searches that steer them."""
    trained = {"cnn": f"{folder}/dasnet-cnn-seed{{seed}}.hdf5"}
    return (
        grid.expand("dasnet-cnn", None, SEEDS),
        grid.expand("dasnet", None, SEEDS, trained),
    )


def compare(path, other, test):
    """Return how many test images only the first, and only the other model gets wrong, and p."""
    only, only_other, p = spread.paired(wrong(path, test), wrong(other, test))
    return {"only": only, "only_other": only_other, "p": p}


if __name__ == "__main__":
    main()
