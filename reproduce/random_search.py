"""Reproduce the search for better learning rates, which the conclusion asks for.

It trains the trials of reproduce/sweeps/random_search.toml into runs/random_search/. The one with
the lowest validation error is the choice. It is trained again with fresh seeds, and so is the
preset. Table and figure go to runs/figures/. Copy the records to reproduce/results/random_search/
to record them.
"""

import again
import common
from evidence import random_search, runs

from reinforce_dropout.running import grid

FRESH_SEEDS = range(71, 74)


@again.command
def main(options):
    """Train the trials, then the choice and the preset, and draw."""

    def train_again(folder, command):
        planned = fresh_runs(random_search.trials(runs.read(folder)))
        outcomes = again.train(planned, folder, options, command, curves_only=True)
        common.tell_failures(outcomes)

    again.run("random_search", options, "random_search.py", measure=train_again)


def fresh_runs(trials):
    """Return the runs of the chosen trial and of its preset with fresh seeds."""
    best = random_search.choice(trials)
    fields = best.attributes["experiment"]
    preset, length = fields["name"], {"n_epochs": fields["n_epochs"]}
    chosen = {field: [value] for field, value in runs.changes(best, preset).items()}
    return [
        *grid.expand(preset, None, FRESH_SEEDS, length),
        *grid.expand(preset, chosen, FRESH_SEEDS, length),
    ]


if __name__ == "__main__":
    main()
