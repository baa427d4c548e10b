"""Redraw all figures and tables from the recorded runs in reproduce/results/. Nothing is trained.

It writes into figures/:

- figure1 and table.md: the paper's figure and numbers; figure1_seeds and seeds.md: with all seeds;
- claims.md: for each claim of section 4, whether it was reproduced;
- kl_gradient.md: the two readings of the gradient for the 800-800 network;
- ledger, tradeoff: one open reading at a time; units against errors for many lambda;
- systems: the systems that the paper names, beside each other; systems_speed;
- policy_search: who reaches REINFORCE's best validation error first; gradient_variance;
- random_search: better learning rates;
- frontier: test error against the time of a forward pass;
- training_speed, block_speedup, block_dropout.

It also writes the table of claims in README.md. Missing runs are left out.
"""

import json
from pathlib import Path

import benchmarks
import block_dropout
import common
from evidence import (
    frontier,
    ledger,
    policy_search,
    random_search,
    runs,
    systems,
    systems_speed,
    tradeoff,
    variance,
    verdicts,
)

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import claims, figures, files, records

EVIDENCE = {
    "ledger": ledger,
    "tradeoff": tradeoff,
    "systems": systems,
    "policy_search": policy_search,
    "random_search": random_search,
    "frontier": frontier,
}
"""Modules with ``table(records)`` and ``figure(records)``, by the folder of their runs."""

TABLES = {"gradient_variance": variance, "systems_speed": systems_speed}
"""Modules with ``table(results)``, by the name of the file of their results."""

BESIDE_THE_PAPER = ("systems",)
"""Keys of `EVIDENCE` whose runs stand beside the recorded runs of the paper's presets."""

SWEEPS = Path(__file__).parent / "sweeps"

BEGIN, END = "<!-- claims: written by `make figures` -->\n", "<!-- /claims -->\n"


@common.command
def main(options):
    """Write figures and tables of the recorded runs."""
    for name in claims.PAPER:
        path = common.results_path(options, name)
        if not path.exists():
            raise RecordError(
                f"{path} is missing: fetch it from the repository, or run reproduce/run_all.py "
                f"and copy runs/{name}-seed{common.RECORDED_SEED}.hdf5 there."
            )
    seeds = common.read_results(options)
    recorded = seeds[common.RECORDED_SEED]
    write_readings(options, recorded["policy-800-800"])
    write_seeds(options, seeds)
    paper = [run for by_preset in seeds.values() for run in by_preset.values()]
    for name, evidence in EVIDENCE.items():
        folder = common.results_folder(options) / name
        beside = paper if name in BESIDE_THE_PAPER else ()
        draw_evidence(evidence, folder, name, options.root / "figures" / name, beside)
    write_tables(options)
    columns = common.recorded_columns(seeds)
    common.write_report(options, recorded, claims.table(columns), options.root / "figures")
    write_claims(options.root / "README.md", claims.stated(columns))
    block_dropout.redraw(options)
    for name in benchmarks.BENCHMARKS:
        path = common.results_path(options, f"speed/{name}")
        if path.exists():
            benchmarks.draw(name, path, options.root / "figures")


def write_readings(options, literal):
    """Compare the literal reading of (2) and (6) with the true gradient, see `returns`."""
    name = "policy-800-800"
    path = common.results_path(options, f"comparison/{name}-total")
    if path.exists():
        readings = {"score": {name: literal}, "total": {name: records.read(path)}}
        text = claims.table(readings, presets=(name,))
        files.write_whole(options.root / "figures" / "kl_gradient.md", text.encode())


def write_seeds(options, seeds):
    """Compare the recorded runs of all seeds, and a rerun of the first by other kernels."""
    columns = {f"seed {seed}": runs for seed, runs in seeds.items()}
    rerun = common.results_folder(options) / "rerun"
    if rerun.exists():
        columns["rerun"] = claims.read_by_preset(sorted(rerun.glob("*.hdf5")))
    if len(columns) > 1:
        text = claims.table(columns)
        files.write_whole(options.root / "figures" / "seeds.md", text.encode())
    found = [[one[name] for one in seeds.values() if name in one] for name in claims.PAPER]
    if min(map(len, found)) > 1:
        text = verdicts.table(verdicts.all_verdicts(*found))
        files.write_whole(options.root / "figures" / "claims.md", text.encode())
        figures.save_figure(figures.figure1(*found[1:]), options.root / "figures/figure1_seeds")


def draw_evidence(evidence, folder, name, stem, beside=()):
    """Write table and figure of the runs in a folder, if there are any, and of those `beside`."""
    if found := runs.read(folder):
        found += beside
        text = evidence.table(found) + runs.not_run(folder, SWEEPS / f"{name}.toml")
        files.write_whole(stem.with_suffix(".md"), text.encode())
        figures.save_figure(evidence.figure(found), stem)


def write_tables(options):
    """Write the tables of `TABLES` whose results are recorded."""
    for name, evidence in TABLES.items():
        path = common.results_folder(options) / f"{name}.json"
        if path.exists():
            text = evidence.table(json.loads(path.read_text()))
            files.write_whole(options.root / "figures" / f"{name}.md", text.encode())


def write_claims(readme, table):
    """Put a table between the markers of the file `readme`, if there is one."""
    if readme.exists():
        before, _, rest = readme.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        files.write_whole(readme, f"{before}{BEGIN}{table}{END}{after}".encode())


if __name__ == "__main__":
    main()
