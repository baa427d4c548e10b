"""The patience rule, against the loop of the Theano Deep Learning Tutorials."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from reinforce_dropout.running.early_stopping import Patience


def tutorial(errors, n_train_batches, patience, patience_increase, improvement_threshold):
    """Run the training loop of the tutorials' ``mlp.py`` on given validation errors.

    Their names are kept. They validate every ``min(n_train_batches, patience / 2)`` updates, which
    is once an epoch for their numbers, and so here.

    Returns
    -------
    last, best : int
        The last epoch that was validated and the one with the best model, 0 where there is none.
    """
    validation_frequency = n_train_batches
    best_validation_loss = math.inf
    best_epoch = last_epoch = epoch = 0
    done_looping = False
    while epoch < len(errors) and not done_looping:
        epoch = epoch + 1
        for minibatch_index in range(n_train_batches):
            iter = (epoch - 1) * n_train_batches + minibatch_index
            if (iter + 1) % validation_frequency == 0:
                last_epoch = epoch
                this_validation_loss = errors[epoch - 1]
                if this_validation_loss < best_validation_loss:
                    if this_validation_loss < best_validation_loss * improvement_threshold:
                        patience = max(patience, iter * patience_increase)
                    best_validation_loss = this_validation_loss
                    best_epoch = epoch
            if patience <= iter:
                done_looping = True
                break
    return last_epoch, best_epoch


def ours(errors, n_batches, *settings):
    """Run the same with `Patience`, as `training` does."""
    patience = Patience(*settings)
    epoch = best = 0
    while epoch < len(errors) and patience.allows((epoch + 1) * n_batches):
        epoch += 1
        if patience.improved(errors[epoch - 1], epoch * n_batches):
            best = epoch
    return epoch, best


ERRORS = st.lists(
    st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda k: k / 20)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(
    ERRORS,
    st.integers(1, 12),
    st.integers(1, 100),
    st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0]),
    st.sampled_from([0.5, 0.9, 0.995, 1.0]),
)
def test_the_tutorials_rule(errors, n_batches, patience, increase, threshold):
    """The last and the best epoch are the same, for any validation errors and settings."""
    settings = (errors, n_batches, patience, increase, threshold)
    assert ours(*settings) == tutorial(*settings)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 100), st.sampled_from([1.3, 1.5, 2.0]))
def test_the_tutorials_rule_on_slow_progress(n_batches, patience, increase):
    """The same if each error is a little better than the one before."""
    for factor in (0.99, 0.994, 0.996, 0.9999):
        errors = [factor**epoch for epoch in range(80)]
        settings = (errors, n_batches, patience, increase, 0.995)
        assert ours(*settings) == tutorial(*settings)


def test_the_papers_numbers_by_hand():
    """2500 mini-batches an epoch, patience 10 000, as for 50 000 images in mini-batches of 20."""
    patience = Patience()
    assert (patience.patience, patience.increase, patience.threshold) == (10_000, 2.0, 0.995)
    assert patience.best == math.inf
    assert patience.allows(2500)
    assert patience.improved(0.10, 2500)
    assert (patience.best, patience.patience) == (0.10, 10_000)  # 2 * 2499 is less
    assert patience.improved(0.05, 5000) and patience.patience == 10_000  # 2 * 4999 too
    assert patience.improved(0.0499, 7500)  # the best, but not below 0.995 * 0.05
    assert (patience.best, patience.patience) == (0.0499, 10_000)
    assert not patience.improved(0.0499, 10_000)  # no better: the earlier model is kept
    assert patience.allows(10_000) and patience.allows(10_001) and not patience.allows(10_002)
    assert patience.improved(0.04, 10_000)
    assert patience.patience == 2 * 9999
    assert not patience.improved(0.041, 12_500)
    assert (patience.best, patience.patience) == (0.04, 19_998)
    assert patience.allows(17_500) and not patience.allows(20_000)


def test_nan_is_no_improvement():
    """A validation error of NaN never becomes the best."""
    patience = Patience()
    assert not patience.improved(math.nan, 10)
    assert patience.improved(0.5, 20)
    assert not patience.improved(math.nan, 30)
    assert patience.best == 0.5
