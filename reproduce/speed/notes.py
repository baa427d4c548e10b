"""What the tables of both benchmarks have in common, in Markdown."""

import numpy as np

from speed.table import LABELS, MACHINE


def markdown(rows):
    """Set rows of text, the first of them the header, as a table in Markdown."""
    header, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rest])


def listed(lines):
    """Set lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def threads(n_threads):
    """Say a number of threads."""
    return f"{n_threads} thread{'s' * (n_threads > 1)}"


def describe(results):
    """Return lines on the machine, on the libraries in each process, and on the run."""
    attributes = results.attributes
    return [
        *(f"{LABELS[name]} is left out: {why}." for name, why in attributes["left_out"].items()),
        *(_peaks(results, n_threads) for n_threads in sorted(results.values("n_threads"))),
        *_processes(results),
        f"Medians of {_turns(results)} turns. The middle half of the times lies within "
        f"{_spread(results):.0%} of their median in nine of ten columns.",
        f"{attributes['host_cpu']}; {_versions(attributes)}; commit "
        f"{attributes['git_commit'] or 'none'}; {attributes['started']} to {attributes['ended']}; "
        f"`{attributes['command']}`.",
    ]


def _peaks(results, n_threads):
    flops, n_bytes = results.peaks(n_threads)
    return (
        f"Peaks with {threads(n_threads)}: {flops / 1e9:.0f} GFLOP/s in a large float32 product, "
        f"{n_bytes / 1e9:.0f} GB/s in a large copy (read and written)."
    )


def _processes(results):
    """Return a line for each kind of process at the most threads, with the columns it served."""
    columns = {}
    for measurement in results.all(n_threads=max(results.values("n_threads"))):
        for name, column in measurement.columns.items():
            columns.setdefault(column.process, set()).add(LABELS.get(name, name.split()[0]))
    return [
        f"{', '.join(sorted(names))}: {process or 'no known library'}."
        for process, names in columns.items()
    ]


def _turns(results):
    numbers = {len(m.columns[MACHINE[0]].microseconds) for m in results.measurements}
    return " to ".join(map(str, sorted({min(numbers), max(numbers)})))


def _spread(results):
    """Return a bound on the quartiles' distance from the median; nine of ten columns keep it."""
    quartiles = [
        column.quartiles()
        for measurement in results.measurements
        for name, column in measurement.columns.items()
        if name not in MACHINE
    ]
    spreads = [max(high - median, median - low) / median for low, median, high in quartiles]
    return np.percentile(spreads, 90)


def _versions(attributes):
    return ", ".join(f"{name} {version}" for name, version in attributes["versions"].items())
