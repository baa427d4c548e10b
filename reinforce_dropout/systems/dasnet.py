"""dasNet (Stollenga, Masci, Gomez and Schmidhuber, 2014): a policy steers a trained, frozen CNN.

The network looks at an image several times. Each of its F maps has a gate, a factor that starts at
1. After a pass the policy observes o: the spatial mean of every gated map, and the probabilities of
the classes. The gates of the next pass are ``F softmax(theta o)``. So they are positive, and their
mean is 1. The logits of the last pass are the prediction. With one pass it is the plain CNN.

theta is not learned by a gradient: SNES searches for it, see `snes`. The fitness of a candidate,
over a mini-batch that is the same for the whole population, is::

    - mean_n w_n nll_n - l2 |theta|^2,    w_n = 1 where the image is misclassified, else 0.005

The paper reports 9.22 % against 9.61 % on CIFAR-10. There is no result for MNIST, and no public
code. We chose: maps are observed after pooling; classes by their softmax; the search starts at
theta = 0, where all gates are 1. The network is that of the preset ``dasnet-cnn``, so train it
first. Its record is named by ``cnn``.

Gates are factors of maps, and convolution is linear. So the convolution of each map is computed
once for an image, and all passes of all candidates share it. A generation costs a few
multiplications for each candidate instead of its own convolutions. This needs two convolution
layers, no more.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import categorical, costs
from reinforce_dropout.algorithm import Step
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.initializers import parameter
from reinforce_dropout.network import Pass
from reinforce_dropout.systems import cnn
from reinforce_dropout.systems.conv import convolve_by_map, positions
from reinforce_dropout.systems.learner import put
from reinforce_dropout.systems.settings import (
    anything,
    as_text,
    at_least,
    positive_at_most,
    setting,
    settings,
)
from reinforce_dropout.systems.snes import population_size, snes
from reinforce_dropout.systems.system import System, by_name


@settings
class Settings(cnn.Shape):
    """Settings of a search for the gates of a trained CNN."""

    system: ClassVar[str] = "dasnet"

    cnn: str = setting(
        "dasnet-cnn-seed{seed}.hdf5",
        anything(),
        "Record of the trained network. {seed} stands for the seed of this run.",
    )
    n_passes: int = setting(5, at_least(1), "Passes over an image, T; 1 is the plain network.")
    population: int = setting(
        0, at_least(0), "Candidates of a generation; 0 is SNES's own number, 4 + floor(3 log d)."
    )
    search_std: float = setting(
        0.05, positive_at_most(10), "Standard deviation of the search at first, in each dimension."
    )
    mean_learning_rate: float = setting(
        1.0,
        at_least(0),
        "Of the mean of the search. SNES takes 1; less averages over mini-batches.",
    )
    weight_if_right: float = setting(
        0.005, at_least(0), "Weight of the nll of an image that is classified right."
    )
    l2: float = setting(0.005, at_least(0), "Coefficient of |theta|^2 in the fitness.")

    def check(self):
        """Refuse other numbers of convolutions."""
        if len(self.n_units) != 2:
            raise ExperimentError(
                f"dasNet steers two convolution layers, and n_units is {self.n_units}: give two."
            )


class Look(NamedTuple):
    """One pass over the images, by every candidate.

    Attributes
    ----------
    logits : tensor (m_b, P, n_classes)
        Of the softmax.
    gates : tensor (m_b, P, F)
        Factors of the maps. Their mean over the maps is 1.
    """

    logits: Any
    gates: Any


def looks(network, x, theta, n_passes):
    """Let candidates look at images several times, eq. by eq. of the module's docstring.

    Parameters
    ----------
    network : Network
        Of two `conv.Convolution` layers.
    x : tensor (m_b, n_in)
    theta : tensor (P, F, n_observations)
    n_passes : int

    Returns
    -------
    list of Look
    """
    first, second = network.layers
    shape = (x.shape[0], theta.shape[0])
    h_1 = second.images(first(x))
    mean_1, by_map = h_1.mean(axis=(1, 2)).T, convolve_by_map(h_1, second.W, second.size)
    convolved_shape = (shape[0], second.n_maps, *positions(second.shape, second.size), shape[1])
    gates, found = pt.ones((*shape, n_gates(network)), dtype=x.dtype), []
    for _ in range(n_passes):
        g_1, g_2 = gates[:, :, : first.n_maps], gates[:, :, first.n_maps :].transpose(0, 2, 1)
        convolved = (by_map @ g_1.transpose(0, 2, 1)).reshape(convolved_shape)
        s_2 = second.finish(convolved) * g_2[:, :, None, None, :]
        flat = s_2.reshape((shape[0], int(np.prod(second.next_shape)), shape[1]))
        logits = network.output(flat.transpose(0, 2, 1).reshape((-1, flat.shape[1])))
        logits = logits.reshape((*shape, -1))
        found.append(Look(logits, gates))
        mean_2 = s_2.mean(axis=(2, 3)).transpose(0, 2, 1)
        o = pt.concatenate([g_1 * mean_1[:, None, :], mean_2, categorical.mean(logits)], axis=2)
        gates = steered(o, theta)
    return found


def n_gates(network):
    """Return F, the number of maps that have a gate."""
    return sum(layer.n_maps for layer in network.layers)


def steered(o, theta):
    """Return the next gates, ``F softmax(theta o)``, (m_b, P, F): positive, with the mean 1.

    Parameters
    ----------
    o : tensor (m_b, P, n_observations)
    theta : tensor (P, F, n_observations)
    """
    z = (o.transpose(1, 0, 2) @ theta.transpose(0, 2, 1)).transpose(1, 0, 2)
    return z.shape[2].astype(z.dtype) * categorical.mean(z)


def fitness(nll, wrong, theta, settings):
    """Return the fitness (P,) of candidates: see the module's docstring.

    Parameters
    ----------
    nll : tensor (m_b, P)
        In nats.
    wrong : bool tensor (m_b, P)
        Whether the image is misclassified.
    theta : tensor (P, d)
    settings : Settings
    """
    weights = pt.switch(wrong, np.float32(1), np.float32(settings.weight_if_right))
    return -(weights * nll).mean(axis=0) - np.float32(settings.l2) * (theta**2).sum(axis=1)


def generation(network, mu, sig, x, y, rng, settings):
    """Build the step of a mini-batch: one generation of the search.

    Parameters
    ----------
    network : Network
        Frozen.
    mu, sig : shared (d,)
        Of the search, see `snes.snes`.
    x, y, rng
        As in `algorithm.training_step`.
    settings : Settings

    Returns
    -------
    Step
        ``train_nll`` (nats an example) and ``train_error`` are means over the population.
        ``best_fitness`` is that of its best candidate. ``search_std`` is the mean of sig, and
        ``gate_spread`` the standard deviation of the last gates.
    """
    d = mu.get_value(borrow=True).size
    P = settings.population or population_size(d)
    next_rng, s = pt.random.normal(size=(P, d), rng=rng, dtype=x.dtype, return_next_rng=True)
    theta = mu + sig * s
    last = looks(network, x, theta.reshape((P, n_gates(network), -1)), settings.n_passes)[-1]
    labels = pt.repeat(y, P)
    logits = last.logits.reshape((x.shape[0] * P, -1))
    nll = costs.nll(logits, labels).reshape((-1, P))
    wrong = pt.neq(pt.argmax(logits, axis=1), labels).reshape((-1, P))
    fit = fitness(nll, wrong, theta, settings)
    statistics = {
        "train_nll": nll.mean(),
        "train_error": wrong.mean(dtype=x.dtype),
        "best_fitness": fit.max(),
        "search_std": sig.mean(),
        "gate_spread": last.gates.std(),
    }
    return Step(statistics, snes(mu, sig, s, fit, settings.mean_learning_rate) | {rng: next_rng})


def predictions(network, mu, n_passes):
    """Return ``{rule: predict(x, rng) -> Pass}``: the logits of the last and of the first pass."""

    def predict(x, rng, n):
        theta = mu.reshape((1, n_gates(network), -1))
        return Pass(looks(network, x, theta, n)[-1].logits[:, 0], [], rng)

    return {"last-pass": partial(predict, n=n_passes), "first-pass": partial(predict, n=1)}


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    network = cnn.convolutional_network(settings, image_shape, n_classes)
    F = n_gates(network)
    d = F * (F + n_classes)
    mu = parameter(np.zeros(d, "float32"), "theta")
    sig = parameter(np.full(d, settings.search_std, "float32"), "search_std")
    frozen = by_name(network.params)

    def prepare(read):
        put(frozen, trained(settings, image_shape, n_classes, read))

    return System(
        parameters=frozen | {"theta": mu},
        step=partial(generation, network, mu, sig, settings=settings),
        predict=predictions(network, mu, settings.n_passes),
        prepare=prepare,
    )


def trained(settings, image_shape, n_classes, read):
    """Return the parameters of the trained network, by name, from the record that settings name.

    Raises
    ------
    ExperimentError
        There is no such record, or it is not of a finished run of such a network.
    """
    path = Path(settings.cnn.replace("{seed}", str(settings.seed)))
    if not path.exists():
        raise ExperimentError(
            f"dasNet needs a trained network, and there is no record {path}: type "
            f"`reinforce-dropout train dasnet-cnn --seed {settings.seed} --out {path}` first, or "
            "name another record with --set cnn=FILE."
        )
    record = read(path)
    found, fields = record.attributes["experiment"], dataclasses.asdict(settings)
    if found["system"] != cnn.Settings.system:
        raise ExperimentError(
            f"{path} holds a run of the system {found['system']}, not {cnn.Settings.system}: name "
            "a record of the preset dasnet-cnn with --set cnn=FILE."
        )
    if record.attributes["status"] != "finished" or not record.best:
        raise ExperimentError(f"{path} holds no finished model: train the network to its end.")
    for name in ("n_units", "kernel_size", "activation"):
        own = as_text(fields[name])
        if as_text(found[name]) != own:
            raise ExperimentError(
                f"the network in {path} has {name}={as_text(found[name])}, not {own}: add "
                f"--set {name}={as_text(found[name])}, or name another record."
            )
    if record.dimensions != (tuple(image_shape), n_classes):
        raise ExperimentError(
            f"the network in {path} is for other images or classes: train it with the same --data."
        )
    return record.best


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    # By the validation error of one epoch. A mini-batch of training images has few errors, so most
    # of a generation's move is noise. Longer moves made the frozen network worse.
    Settings(
        name="dasnet",
        batch_size=250,
        shuffle=True,
        n_epochs=10,
        patience=2_000,
        search_std=0.01,
        mean_learning_rate=0.1,
    ),
)
