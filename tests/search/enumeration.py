"""Expectations and variances of estimators, by summing over all that they draw.

A family whose draws are inputs stands for the Bernoulli's. All combinations of draws are the rows
of one mini-batch. The noise of antithetic pairs is continuous. But between the noises at which a
decision changes, an estimate is linear in it. So two Gauss nodes there give its mean and its mean
square exactly.
"""

from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled

from reinforce_dropout import bernoulli, costs
from reinforce_dropout.network import forward
from reinforce_dropout.systems import policy

NODES = np.array([0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)])
"""Of the Gauss quadrature on (0, 1); both weigh 1/2."""


class Script:
    """Draws as inputs of codes (rows, k), each code one of ``n_codes``.

    Attributes
    ----------
    codes : list of matrix
    shapes : list of (k, n_codes)
    log_weights : list of vector
        Log-probability of each row's draw.
    """

    def __init__(self):
        self.codes, self.shapes, self.log_weights = [], [], []

    def draw(self, k, n_codes):
        """Return the codes of a new draw."""
        self.codes.append(pt.dmatrix())
        self.shapes.append((k, n_codes))
        return self.codes[-1]

    def family(self, k):
        """Return the Bernoulli family of k units that draws from the script."""
        return SimpleNamespace(**vars(bernoulli) | {
            "sample": partial(self.sample, k), "noise": partial(self.noise, k)
        })  # fmt: skip

    def sample(self, k, z, rng):
        """Decide as the script says."""
        u = self.draw(k, 2)
        self.log_weights.append(bernoulli.log_prob(z, u))
        return u, rng

    def noise(self, k, z, u, rng):
        """Make noise that fits the decisions: two pieces with two nodes each."""
        code, sigma = self.draw(k, 4), pt.sigmoid(z)
        low, high = pt.switch(u, 0, sigma), pt.switch(u, sigma, 1)
        middle, upper = pt.clip(1 - sigma, low, high), code >= 2
        begin, end = pt.switch(upper, middle, low), pt.switch(upper, high, middle)
        n = begin + pt.switch(pt.eq(code % 2, 0), *NODES) * (end - begin)
        self.log_weights.append(pt.log(0.5 * (end - begin) / (high - low)).sum(axis=1))
        return n, rng

    def rows(self, which):
        """Return the codes of all draws: all combinations of some, zeros for the others."""
        choices = [range(n) for i in which for n in [self.shapes[i][1]] * self.shapes[i][0]]
        combined = np.array(list(product(*choices)), "float64")
        codes = [np.zeros((len(combined), k)) for k, _ in self.shapes]
        ends = np.cumsum([self.shapes[i][0] for i in which])[:-1]
        for i, part in zip(which, np.split(combined, ends, axis=1), strict=True):
            codes[i] = part
        return codes


class Enumeration:
    """One example through a small network, with everything on which an estimate depends.

    Parameters
    ----------
    n_units : tuple of int
    **settings
        Of `policy.Settings`.
    """

    def __init__(self, n_units, seed=0, **settings):
        self.settings = policy.Settings(n_units=n_units, **settings)
        self.n_units, self.names = (
            n_units,
            [f"{p}_{i + 1}" for i in range(len(n_units)) for p in "Zo"],
        )
        self.network = reference.double_network((3, *n_units, 3), seed)
        self.P = reference.values(self.network)
        self.x, self.y = np.random.default_rng(seed).normal(size=(1, 3)), np.array([1])

    def estimates(self, i):
        """Return the estimates of dE[C]/dz for stage i, the scores, the states, the probabilities.

        They are (rows, n_units[i]) twice, (rows, n_below) and (rows,).
        """
        script, found = Script(), {}
        gates = zip(self.network.gates, self.n_units, strict=True)
        network = self.network._replace(
            gates=[gate._replace(family=script.family(k)) for gate, k in gates]
        )
        x, y = pt.dmatrix("x"), pt.lvector("y")
        passed = forward(network, x)
        ends = [len(script.codes)]

        def record(stage, estimate, direct, product):
            ends.append(len(script.codes))
            (mean,) = product(estimate.of, [stage.z], estimate.c)
            score = stage.u - pt.sigmoid(stage.z)
            found[stage.name] = [mean * x.shape[0], score, stage.s]
            return [p.zeros_like() for p in stage.gate.policy.theta]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(policy, "to_theta", record)
            learn = policy.search(self.settings, nll_of=lambda logits: costs.nll(logits, y))
            learn(network, passed, costs.nll(passed.logits, y))
        own = [*range(ends[0]), *range(ends[i], ends[i + 1])]
        codes = script.rows(own)
        outputs = [*found[str(i + 1)], *(script.log_weights[k] for k in own)]
        f = compiled([x, y, *script.codes], outputs, on_unused_input="ignore")
        n = len(codes[0])
        with np.errstate(divide="ignore"):  # a piece may be empty
            G, score, s, *log_weights = f(np.tile(self.x, (n, 1)), np.tile(self.y, n), *codes)
        weights = np.exp(sum(log_weights))
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-10)
        return G, score, s, weights

    def mean(self):
        """Return the expectation of the estimates with respect to all policies, by name."""
        means = {}
        for i in range(len(self.n_units)):
            G, _, s, weights = self.estimates(i)
            means[f"Z_{i + 1}"] = np.einsum("n,ni,nk->ik", weights, s, G)
            means[f"o_{i + 1}"] = weights @ G
        return means

    def variance(self, i):
        """Return the variance of the estimate of dE[C]/dz, summed over the units of stage i."""
        G, *_, weights = self.estimates(i)
        return float((weights @ G**2 - (weights @ G) ** 2).sum())

    def variance_with_best_baseline(self, i):
        """Return the variance of G - b score, summed over the units, with the best b for each."""
        G, score, _, weights = self.estimates(i)
        b = (weights @ (G * score)) / (weights @ score**2)
        rest = G - b * score
        return float((weights @ rest**2 - (weights @ rest) ** 2).sum())

    def gradient(self, value):
        """Return the gradient of E[value(zs, masks, logits)] with respect to all policies."""
        return reference.gradient(
            lambda P: reference.expectation(P, self.x, list(self.n_units), value),
            self.P,
            self.names,
        )
