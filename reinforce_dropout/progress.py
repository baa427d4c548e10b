"""What a person sees while a run trains: one bar, with an ETA and the current errors."""

import sys

from tqdm import tqdm

from reinforce_dropout.evaluation import error_by_rule

NON_TERMINAL_INTERVAL = 30.0
"""Seconds between lines where the output is a log and a bar cannot be redrawn."""


class ProgressBar:
    """A bar on stderr that counts mini-batches.

    The number of epochs is not known in advance: the bar's end, and so its ETA, is where the
    patience ends as things stand, and moves on when the validation error improves.

    Parameters
    ----------
    experiment : Experiment
        What is trained; errors are shown by its own rule.
    backend : str
        What it is compiled to, said while the bar waits for the first epoch.
    shown : bool
        False: nothing is printed.
    row : int
        Line of the terminal, for runs side by side.
    """

    def __init__(self, experiment, backend, shown=True, row=0):
        self.experiment = experiment
        self.bar = tqdm(
            desc=f"{experiment.name} compiling, backend {backend}",
            disable=not shown,
            position=row,
            file=sys.stderr,
            unit="update",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else NON_TERMINAL_INTERVAL,
            bar_format="{desc} {percentage:3.0f}%|{bar}| ETA {remaining}{postfix}",
        )

    def epoch(self, epoch, n_updates, planned_updates, n_batches):
        """Tell that `epoch` (from 1) begins, after `n_updates` of `planned_updates` updates."""
        if self.bar.total is None:
            self.bar.reset()
            self.bar.initial = n_updates  # a resumed run's rate counts its own updates only
        self.bar.n, self.bar.total = n_updates, planned_updates
        self.bar.set_description_str(
            f"{self.experiment.name} epoch {epoch}/{-(-planned_updates // n_batches)}"
        )

    def update(self):
        """Tell that one mini-batch is done."""
        self.bar.update()

    def errors(self, curves):
        """Show the last row of the curves of a `records.Record`, errors by the run's own rule."""
        texts = [f"nll {curves['train_nll'][-1]:.4f}"]
        texts += [
            f"{name} {100 * error_by_rule(curves[f'{name}_error'][-1], self.experiment):.2f} %"
            for name in ("valid", "test")
        ]
        if "active_fraction" in curves:
            texts.append("active " + " ".join(f"{a:.0%}" for a in curves["active_fraction"][-1]))
        self.bar.set_postfix_str(" ".join(texts), refresh=False)

    def close(self):
        """Leave the bar as it stands."""
        self.bar.close()
