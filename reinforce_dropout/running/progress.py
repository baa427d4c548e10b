"""What a person sees while a run trains: one bar, with an ETA and the current errors."""

import sys

from tqdm import tqdm

NON_TERMINAL_INTERVAL = 30.0
"""Seconds between lines if the output is a log, where a bar cannot be redrawn."""


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
        """Show the last entries of a record's curves; errors are by the rule that decides."""
        texts = [f"nll {curves['train_nll'][-1]:.4f}"]
        texts += [f"{name} {curves[f'{name}_error'][-1]:.2%}" for name in ("valid", "test")]
        if "active_fraction" in curves:
            texts.append("active " + " ".join(f"{a:.0%}" for a in curves["active_fraction"][-1]))
        self.bar.set_postfix_str(" ".join(texts), refresh=False)

    def close(self):
        """End the bar."""
        self.bar.close()
