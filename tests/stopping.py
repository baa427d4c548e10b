"""Runs that are stopped and resumed, to compare with runs that are not."""

import numpy as np
import pytest

from reinforce_dropout import train


def check_resumes(experiment, folder, n_done=2, **options):
    """Train a whole run, and one that is stopped after `n_done` epochs and resumed.

    Assert that both have the same curves and parameters, to the last bit, and return the first.
    """
    options = {"show_progress": False, "n_threads": 1} | options
    whole = train(experiment, folder / "whole.hdf5", **options)
    left = iter([False] * n_done + [True])

    def stop():
        if next(left):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(experiment, folder / "parts.hdf5", before_epoch=stop, **options)
    resumed = train(experiment, folder / "parts.hdf5", **options)
    assert resumed.attributes["resumed"] and whole.n_epochs == resumed.n_epochs > n_done
    assert whole.curves.keys() == resumed.curves.keys()
    for name in whole.curves.keys() - {"epoch_seconds"}:
        np.testing.assert_array_equal(whole.curves[name], resumed.curves[name], err_msg=name)
    assert whole.best.keys() == resumed.best.keys()
    for name, value in whole.best.items():
        np.testing.assert_array_equal(value, resumed.best[name], err_msg=name)
    return whole
