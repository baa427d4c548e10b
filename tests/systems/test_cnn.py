"""The convolutional network: its pass and its gradient against NumPy, and a whole run."""

import convolutions
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from idx import write_dataset
from reference import AS_WRITTEN, compiled, flat, values_of
from stopping import check_resumes
from test_settings import check_sentence

from reinforce_dropout import backends, load_evaluation, systems
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import cnn

SHAPE, N_CLASSES = (10, 9), 3
FIELDS = {"n_units": (2, 3), "kernel_size": 2}


def logits(P, x, size=2):
    """Return the logits of the softmax; `P` maps names to arrays."""
    s = x.reshape(-1, 1, *SHAPE)
    for name in ("1", "2"):
        s = convolutions.layer(P, name, s, size)
    return s.reshape(len(x), -1) @ P["W_out"] + P["b_out"]


def batch(n=4):
    """Return images and labels."""
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(n, SHAPE[0] * SHAPE[1])).astype("float32")
    return x, rng.integers(0, N_CLASSES, n).astype("int32")


def test_a_pass_is_numpys():
    """Two convolutions and the layer to the classes."""
    system = systems.build_for_training(cnn.Settings(**FIELDS), SHAPE, N_CLASSES)
    x = pt.fmatrix("x")
    f = compiled([x], system.predict["all units"](x, None).logits)
    np.testing.assert_allclose(f(batch()[0]), logits(values_of(system), batch()[0]), rtol=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_step_is_numpys(reduction):
    """Back-propagation through pooling and both convolutions, with the penalty on all weights."""
    e = cnn.Settings(learning_rate=0.5, l2=0.01, loss_reduction=reduction, **FIELDS)
    system = systems.build_for_training(e, SHAPE, N_CLASSES)
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, None)
    before, (images, labels) = values_of(system), batch()
    (nll,) = compiled([x, y], flat(step.statistics), updates=step.updates)(images, labels)

    def loss(P):
        total = getattr(reference.nll(logits(P, images), labels), reduction)()
        return total + 0.01 * sum((P[name] ** 2).sum() for name in P if name[0] == "W")

    np.testing.assert_allclose(nll, reference.nll(logits(before, images), labels).mean(), rtol=1e-5)
    for name, gradient in reference.gradient(loss, before, before).items():
        expected = before[name] - 0.5 * gradient
        np.testing.assert_allclose(
            values_of(system)[name], expected, rtol=1e-4, atol=1e-5, err_msg=name
        )
        assert np.abs(gradient).max() > 0


def test_images_that_are_too_small_are_refused():
    """After 8 x 8 pixels and one convolution of 5 x 5, 2 x 2 are left."""
    with pytest.raises(ExperimentError) as error:
        systems.build_for_training(cnn.Settings(), (8, 8), 4)
    check_sentence(error, "images of 8 x 8 pixels after 2 convolutions", "lower kernel_size")


def test_the_preset():
    """The network of the issue; it has no fields of perceptrons left without a meaning."""
    e = systems.preset("dasnet-cnn")
    assert (e.n_units, e.kernel_size, e.activation) == ((16, 32), 5, "relu")
    parameters = systems.build_for_training(e, (28, 28), 10).parameters
    shapes = {name: p.get_value(borrow=True).shape for name, p in parameters.items()}
    assert shapes == {
        "W_1": (25, 16), "b_1": (16,), "W_2": (400, 32), "b_2": (32,),
        "W_out": (512, 10), "b_out": (10,),
    }  # fmt: skip


def test_features_without_rows_and_columns_are_refused():
    with pytest.raises(ExperimentError, match="the examples have 64 features without: choose"):
        cnn.build(cnn.Settings(), (64,), 4)


def test_trains_resumes_and_evaluates(tmp_path, monkeypatch):
    """End to end."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    data = write_dataset(tmp_path / "idx", n_train=300, n_test=90, shape=(16, 16))
    e = systems.preset("dasnet-cnn")
    e = e.replace(n_units=(3, 4), kernel_size=3, n_epochs=3, batch_size=20)
    with pytensor.config.change_flags(cxx=""):
        record = check_resumes(e, tmp_path, data=data)
        evaluation = load_evaluation(record)(datasets.load(data).test)
    assert record.best_attributes["test_error"] < 0.3  # chance is 0.75
    assert evaluation.errors == {"all units": record.best_attributes["test_error"]}
