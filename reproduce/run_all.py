"""Reproduce section 4: train the paper's three networks side by side, then figure and table.

It is a sweep over three presets, like those of `reinforce-dropout sweep`. One network for each
processor core trains at once. Ctrl-C saves them all. The same command goes on from there, and skips
finished runs. Records go to runs/, figure and table to runs/figures/.
"""

import sys

import common

from reinforce_dropout.results import claims, records
from reinforce_dropout.running import grid
from reinforce_dropout.running.sweep import sweep


@common.command
def main(options):
    """Train all presets, then write and print the results.

    Raises
    ------
    ReinforceDropoutError
        A sentence for each run that failed. The others have been reported.
    KeyboardInterrupt
        After all runs have been saved.
    """
    folder = common.folder(options, "runs")
    settings = {"n_epochs": common.QUICK_EPOCHS} if options.quick else {}
    planned = [
        run
        for name in claims.PAPER
        for run in grid.expand(name, seeds=[options.seed], settings=settings)
    ]
    command = ["python", "reproduce/run_all.py", *sys.argv[1:]]
    outcomes = sweep(planned, folder, data=options.data, command=command)
    common.stop_if_interrupted(outcomes)
    runs = {
        run.preset: records.read(folder / f"{run.name}.hdf5")
        for run in planned
        if outcomes[run.name].how == "finished"
    }
    columns = common.recorded_columns(common.read_results(options)) | {"this run": runs}
    table = claims.table(columns, options.quick)
    common.write_report(options, runs, table, common.folder(options, "runs/figures"))
    common.tell_failures(outcomes)


if __name__ == "__main__":
    main()
