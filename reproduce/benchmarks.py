"""Reproduce the comparisons of speed: training beside PyTorch and JAX, and block dropout.

TRAINING times a training step on MNIST, with policies and without. It compares this package's
backends, PyTorch (eager, and torch.compile) and JAX (one jitted lax.scan). All do the same work.

FORWARD times section 4's block dropout: forward passes that skip dropped units, and training steps
by blocks and by instances, beside the fastest dense way on this machine.

Each candidate has a process of its own, and they take turns. A bound shows what the machine could
do at best. Libraries that are not installed are left out; pip install 'reinforce-dropout[bench]'
installs them. Results go to runs/speed/, table and figure to runs/figures/. Ctrl-C keeps every
setting that is done; the same command goes on from there. If nothing is left to time, it draws
again. A full run of each takes about a quarter of an hour.
"""

import contextlib
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import common
from speed import drawing, forward, ours, table, training
from speed.turns import measure

from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.results import figures, files, provenance
from reinforce_dropout.running import datasets

BENCHMARKS = {"training": (training, drawing.times), "forward": (forward, drawing.speedups)}

NETS = ((500,), (800, 800), (4096, 4096))
THREADS = range(1, 1 + min(2, ours.N_CORES))
QUICK_TURNS = 3


def run(name, quick, nets, threads, turns, root):
    """Time what has not been timed, write table and figure, and print the table."""
    benchmark, _ = BENCHMARKS[name]
    apart = "quick" if quick else ""
    path = root / "runs" / apart / "speed" / f"{name}.hdf5"
    results, data = begin(path), datasets.load()
    measure(
        results,
        benchmark.settings(nets or NETS[: 2 if quick else None], threads or THREADS, quick),
        lambda setting: benchmark.plan(setting, data),
        turns or (QUICK_TURNS if quick else benchmark.TURNS),
        save=lambda: table.write(path, results),
    )
    print(draw(name, path, root / "runs" / "figures" / apart), end="")


def begin(path):
    """Return the results at `path`, or empty ones; refuse results of other code."""
    facts = provenance.collect(["python", "reproduce/benchmarks.py", *sys.argv[1:]])
    for peer in ("torch", "jaxlib"):
        with contextlib.suppress(PackageNotFoundError):
            facts["versions"][peer] = version(peer)
    del facts["n_threads"]  # of this process; each setting has its own
    if path.exists():
        results = table.read(path)
        before, now = ((f["git_commit"], f["versions"]) for f in (results.attributes, facts))
        if before != now:
            raise ReinforceDropoutError(
                f"{path} was measured with other code or versions: delete it or move it away."
            )
        commands = [*results.attributes["command"].split(" && "), facts["command"]]
        results.attributes["command"] = " && ".join(dict.fromkeys(commands))
        return results
    return table.Results(facts | {"left_out": {}, "started": provenance.now(), "ended": ""}, [])


def draw(name, path, folder):
    """Write table and figure of the results at `path` into `folder`, and return the table."""
    benchmark, figure = BENCHMARKS[name]
    results = table.read(path)
    text = benchmark.table(results)
    files.write_whole(folder / f"{benchmark.FIGURES}.md", text.encode())
    figures.save_figure(figure(results), folder / benchmark.FIGURES)
    return text


def widths(text):
    """Read the widths of hidden layers, as in 800-800."""
    return tuple(click.IntRange(1)(width) for width in text.split("-"))


@click.command(help=__doc__)
@click.argument("name", metavar="TRAINING|FORWARD", type=click.Choice(BENCHMARKS, False))
@click.option("--quick", is_flag=True, help=f"Less of everything, {QUICK_TURNS} turns.")
@click.option(
    "--net", "nets", multiple=True, type=widths, metavar="WIDTHS",
    help="Hidden layers, as in 800-800; may be repeated.  [default: 500, 800-800, 4096-4096]",
)  # fmt: skip
@click.option(
    "--threads", multiple=True, type=click.IntRange(1, ours.N_CORES),
    help="Of BLAS and of the kernels; may be repeated.  [default: 1, 2]",
)  # fmt: skip
@click.option("--turns", type=click.IntRange(1), help="At most, fewer where they take long.")
@click.option("--root", type=Path, default=common.ROOT, hidden=True)
def main(name, **options):
    """Run, report an error in a sentence, and end with the exit code."""
    done = "Interrupted: every setting that was done is kept; the same command goes on from there."
    sys.exit(common.guard(lambda: run(name, **options), done))


if __name__ == "__main__":
    main()
