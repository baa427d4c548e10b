"""Redraw all figures and tables from the recorded runs in reproduce/results/; nothing is trained.

Writes figures/figure1.png, figures/figure1.pdf and figures/table.md; in figures/kl_gradient.md the
two readings of the gradient side by side for the 800-800 network; in figures/seeds.md the runs with
other seeds and a rerun with the same, side by side; and training_speed, block_speedup and
block_dropout. What has not been recorded is left out.
"""

import sys

import block_dropout
import block_speedup
import common
import training_speed

from reinforce_dropout import claims, records, report
from reinforce_dropout.errors import RecordError
from reinforce_dropout.experiment import PRESETS


def redraw(options):
    """Write figure and table of the recorded runs.

    Raises
    ------
    RecordError
        A recorded run is missing or damaged.
    """
    for name in PRESETS:
        path = common.results_path(options, name)
        if not path.exists():
            raise RecordError(
                f"{path} is missing: fetch it from the repository, or run reproduce/run_all.py "
                f"and copy {common.run_path(options, name)} there."
            )
    seeds = common.read_results(options)
    recorded = seeds[common.RECORDED_SEED]
    write_readings(options, recorded["policy-800-800"])
    write_seeds(options, seeds)
    table = claims.table(common.recorded_columns(seeds))
    common.write_report(options, recorded, table, options.root / "figures")
    block_dropout.redraw(options)
    for script in (training_speed, block_speedup):
        path = common.results_path(options, script.__name__)
        if path.exists():
            script.redraw(path, options.root / "figures")


def write_readings(options, literal):
    """Compare the literal reading of (2) and (6) with the true gradient, see `Experiment`."""
    name = "policy-800-800"
    path = common.results_path(options, f"comparison/{name}-total")
    if path.exists():
        readings = {"score": {name: literal}, "total": {name: records.read(path)}}
        text = claims.table(readings, presets=(name,))
        report.write_whole(options.root / "figures" / "kl_gradient.md", text.encode())


def write_seeds(options, seeds):
    """Compare the recorded runs of all seeds, and a rerun of the first by other kernels."""
    columns = {f"seed {seed}": runs for seed, runs in seeds.items()}
    rerun = common.results_folder(options) / "rerun"
    if rerun.exists():
        columns["rerun"] = report.read_by_preset(sorted(rerun.glob("*.hdf5")))
    if len(columns) > 1:
        text = claims.table(columns)
        report.write_whole(options.root / "figures" / "seeds.md", text.encode())


if __name__ == "__main__":
    sys.exit(common.main(__doc__, redraw))
