"""Write docs/play/index.html: draw a digit, and see what a policy does with it.

The page holds three recorded networks of 128 units, which differ in lambda only, and some test
images. It needs no network and works from a file. Nothing is trained here. The runs come from

    reinforce-dropout sweep reproduce/sweeps/play.toml --folder reproduce/results/play
"""

import base64
from pathlib import Path

import common
import jinja2
import numpy as np

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import files, records
from reinforce_dropout.running import datasets

SOURCES = Path(__file__).parent / "play"
PARAMETERS = {"W": "W_1", "b": "b_1", "Z": "Z_1", "o": "o_1", "W_out": "W_out", "b_out": "b_out"}
"""Name in the page, and in a record."""

IMAGES_A_CLASS = 2


@common.command
def main(options):
    """Write the page."""
    path = options.root / "docs" / "play" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, page(options).encode())
    print(f"Written: {path}")


def page(options):
    """Return the page in HTML."""
    folder = common.results_folder(options) / "play"
    runs = sorted(map(records.read, folder.glob("*.hdf5")), key=lambda run: _setting(run, "lam"))
    if not runs:
        raise RecordError(f"{folder} has no run: see the first lines of reproduce/play.py.")
    (side, _), n_classes = runs[0].dimensions
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((SOURCES / "page.html.jinja").read_text()).render(
        models=[model(run) for run in runs],
        images=examples(datasets.load(options.data).test),
        n={"side": side, "units": len(runs[0].best["b_1"]), "classes": n_classes},
        target=f"{100 * _setting(runs[0], 'q'):.0f} %",
        script=(SOURCES / "play.js").read_text(),
    )


def model(run):
    """Return what the page needs of a run: parameters in base64, and facts."""
    parameters = {name: _base64(run.best[own].astype("<f4")) for name, own in PARAMETERS.items()}
    return parameters | {
        "lam": _setting(run, "lam"),
        "epoch": run.best_epoch,
        "test_error": float(run.best_attributes["test_error"]),
        "active": float(run.curves["active_fraction"][run.best_epoch - 1, 0]),
    }


def examples(test):
    """Return the first test images of each class: label, number from 1, and pixels in base64."""
    chosen = [np.flatnonzero(test.labels == c)[:IMAGES_A_CLASS] for c in np.unique(test.labels)]
    return [
        {
            "label": int(test.labels[i]),
            "index": int(i) + 1,
            "pixels": _base64(np.round(255 * test.images[i]).astype("uint8")),
        }
        for i in np.concatenate(chosen)
    ]


def _setting(run, name):
    return run.attributes["experiment"][name]


def _base64(values):
    return base64.b64encode(values.tobytes()).decode()


if __name__ == "__main__":
    main()
