"""What a person sees while a run trains: one bar, with an ETA and the current errors."""

import sys

import numpy as np
from tqdm import tqdm

NON_TERMINAL_INTERVAL = 30.0
"""Seconds between lines if the output is a log, where a bar cannot be redrawn."""


def last_known(curve):
    """Return the last entry of a curve (epochs, ...) that is not NaN, or NaN if there is none."""
    known = ~np.isnan(curve).reshape(len(curve), -1).any(axis=1)
    return curve[np.flatnonzero(known)[-1] if known.any() else -1]


class ProgressBar:
    """A bar on stderr that counts mini-batches.

    The number of epochs is not known in advance. The bar ends where the patience ends at present.
    The end and its ETA move on when the validation error improves.

    Parameters
    ----------
    name : str
        What is trained.
    backend : str
        Shown while the bar waits for the first epoch.
    shown : bool
        Whether anything is printed.
    row : int
        Line of the terminal, for runs side by side.
    stays : bool
        Whether the bar stays on the terminal when it is closed.
    """

    def __init__(self, name, backend, shown=True, row=0, stays=True):
        self.name = name
        self.bar = tqdm(
            desc=f"{name} compiling, backend {backend}",
            disable=not shown,
            position=row,
            leave=stays,
            file=sys.stderr,
            unit="update",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else NON_TERMINAL_INTERVAL,
            bar_format="{desc} {percentage:3.0f}%|{bar}| ETA {remaining}{postfix}",
        )

    def epoch(self, epoch, planned, n_batches):
        """Tell that `epoch` (from 1) of `planned` begins, each of `n_batches` updates."""
        n_updates = (epoch - 1) * n_batches
        if self.bar.total is None:
            self.bar.reset()
            self.bar.initial = n_updates  # a resumed run's rate counts its own updates only
        self.bar.n, self.bar.total = n_updates, planned * n_batches
        self.bar.set_description_str(f"{self.name} epoch {epoch}/{planned}")

    def update(self, n=1):
        """Tell that `n` more mini-batches are done."""
        self.bar.update(n)

    def errors(self, curves):
        """Show the last known entries of a record's curves; errors are by the rule that decides."""
        last = {name: last_known(curve) for name, curve in curves.items()}
        texts = [f"nll {last['train_nll']:.4f}"]
        errors = {name: last[f"{name}_error"] for name in ("valid", "test")}
        texts += [f"{name} {error:.2%}" for name, error in errors.items() if not np.isnan(error)]
        if "active_fraction" in curves:
            texts.append("active " + " ".join(f"{a:.0%}" for a in last["active_fraction"]))
        self.bar.set_postfix_str(" ".join(texts), refresh=False)

    def close(self):
        """End the bar."""
        self.bar.close()
