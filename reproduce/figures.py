"""Redraw Figure 1 and the table from the recorded runs in reproduce/results/; nothing is trained.

Writes figures/figure1.png, figures/figure1.pdf and figures/table.md.
"""

import sys

import common

from reinforce_dropout import report
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
    recorded = common.read_results(options)
    common.write_report(options, recorded, report.table(recorded))


if __name__ == "__main__":
    sys.exit(common.main(__doc__, redraw))
