"""Reproduce a paired test of two recorded models on the same test images, as dasNet's is.

FILE and OTHER are records with their models. Both classify all test images. McNemar's exact test
looks at the images that only one of them gets wrong. If the models were equally good, each would
be wrong on half of those. The table goes to the screen, and to --write if it is given.
"""

import sys
from pathlib import Path

import click
import common
import numpy as np
from evidence import spread

from reinforce_dropout.results import files, records
from reinforce_dropout.running import datasets
from reinforce_dropout.running.prediction import load_prediction


def wrong(path, test):
    """Return which test images the best model of a record gets wrong, (n,) bool."""
    return load_prediction(records.read(path))(test.images).argmax(axis=1) != test.labels


def table(names, wrongs):
    """Return the comparison in Markdown, of two names and which images each gets wrong."""
    first, second, p = spread.paired(*wrongs)
    lines = ["| model | test error | only this one is wrong |", "| --- | --- | --- |"]
    for name, bad, only in zip(names, wrongs, (first, second), strict=True):
        lines.append(f"| {name} | {100 * np.mean(bad):.2f} % | {only} images |")
    return "\n".join(lines) + f"\n\nMcNemar's exact test: p = {p:.2g}.\n"


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("--data", default="mnist", show_default=True, help="As for training.")
@click.option("--write", type=click.Path(path_type=Path), help="File for the table.")
def main(file, other, data, write):
    """Compare, report an error in a sentence, and end with the exit code."""

    def compare():
        test = datasets.load(data).test
        text = table([file.stem, other.stem], [wrong(path, test) for path in (file, other)])
        if write:
            files.write_whole(write, text.encode())
        print(text, end="")

    sys.exit(common.guard(compare, "Interrupted."))


if __name__ == "__main__":
    main()
