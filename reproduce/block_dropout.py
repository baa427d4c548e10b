"""Section 4, block dropout: the accuracy that a policy for whole blocks costs.

The paper times block dropout at 15 % of the units and reports no error rate. This trains three
networks, one after the other. The first is the preset block-800-800. The second has uniform block
dropout at the rate of the trained policy. The third is a plain network with as many units as were
active. It writes runs/figures/block_dropout.md with their errors beside the per-instance policy's.

All records go to runs/, and a run goes on where it was interrupted.
"""

import sys

import common

from reinforce_dropout.results import files, records, summary
from reinforce_dropout.running import sweep, training
from reinforce_dropout.systems import preset

NAMES = ("block-800-800", "uniform-block-800-800", "dense-as-active")
PER_INSTANCE = "policy-800-800"


def uniform(block):
    """Return the experiment with uniform block dropout at the active fraction of a run."""
    active = summary.active(block)
    return preset(NAMES[1]).replace(initial_rate=round(float(active.mean()), 3))


def dense(block):
    """Return the experiment without policies, with as many units as were active in a run."""
    n_units = preset(NAMES[0]).n_units
    widths = [round(n * rate) for n, rate in zip(n_units, summary.active(block), strict=True)]
    return preset("baseline-500").replace(name=NAMES[2], n_units=tuple(widths))


def train(options, experiment, execution="dense"):
    """Train an experiment, go on with its run, or return it if it is finished."""
    experiment = experiment.replace(seed=options.seed)
    if options.quick:
        experiment = experiment.replace(n_epochs=common.QUICK_EPOCHS)
    path = common.folder(options, "runs") / f"{experiment.name}.hdf5"
    sweep.make_folder(path.parent)
    return training.train(
        experiment,
        path,
        data=options.data,
        execution=execution,
        n_threads=sweep.N_THREADS,
        command=["python", "reproduce/block_dropout.py", *sys.argv[1:]],
    )


@common.command
def main(options):
    """Train the three networks and write the table."""
    block = train(options, preset(NAMES[0]), execution="block-sparse")
    runs = {NAMES[0]: block}
    runs[NAMES[1]] = train(options, uniform(block), execution="block-sparse")
    runs[NAMES[2]] = train(options, dense(block))
    path = common.results_path(options, PER_INSTANCE)
    if path.exists():
        runs[PER_INSTANCE] = records.read(path)
    write_table(runs, common.folder(options, "runs/figures"))


def redraw(options):
    """Write the table of the recorded runs, if they are there."""
    paths = {name: common.results_path(options, f"blocks/{name}") for name in NAMES}
    paths[PER_INSTANCE] = common.results_path(options, PER_INSTANCE)
    if all(path.exists() for path in paths.values()):
        runs = {name: records.read(path) for name, path in paths.items()}
        write_table(runs, options.root / "figures")


def write_table(runs, folder):
    """Write and print the table of errors, `runs` by name."""
    path = folder / "block_dropout.md"
    files.write_whole(path, table(runs).encode())
    print(table(runs), end="")
    print(f"Written: {path}", file=sys.stderr)


def table(runs):
    """Return the errors and active fractions of the best models in Markdown.

    Uniform dropout is usually evaluated with expected masks, so the table has both rules. A network
    without masks has the same error twice.
    """
    rows = [
        "| network | units active at the best epoch | validation error "
        "| test error, sampled masks | test error, expected masks | epochs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in runs.items():
        active, best_epoch = "all", run.best_epoch - 1
        expected = run.curves.get("test_error_expected", run.curves["test_error"])[best_epoch]
        if "active_fraction" in run.curves:
            fractions = summary.active(run)
            by_layer = ", ".join(f"{100 * a:.1f}" for a in fractions)
            active = f"{100 * fractions.mean():.1f} % ({by_layer})"
        best, epochs = run.best_attributes, str(run.n_epochs)
        if run.attributes["status"] == "unfinished":
            epochs += " (unfinished)"
        widths = "-".join(map(str, run.attributes["experiment"]["n_units"]))
        rows.append(
            f"| {name} ({widths}) | {active} | {100 * best['valid_error']:.2f} % "
            f"| {100 * best['test_error']:.2f} % | {100 * expected:.2f} % "
            f"| {run.best_epoch} of {epochs} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
