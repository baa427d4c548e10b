"""Time of one training step: PyTensor's own Numba mode, this package's mode, and PyTorch.

Networks of 500 and 800-800 units on MNIST, with and without policies, mini-batches of 20, float32.
PyTorch runs eagerly, as its users write it; without PyTorch its column is left empty. All columns
take turns, so that whatever else the computer does slows all of them; the median turn is told.
"""

import argparse
import itertools
import time

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from threadpoolctl import threadpool_limits

from reinforce_dropout import datasets, native, network
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.experiment import Experiment

try:
    import torch
except ImportError:
    torch = None

N_STEPS = 25
"""Steps in one turn."""

COLUMNS = ("PyTensor NUMBA", "this package", "PyTorch eager")


def experiment(n_units, policy):
    """Return the paper's experiment with other layers; lambda is 0, as for 500 units."""
    return Experiment(name="step-time", n_units=n_units, policy=policy, lam=0.0, batch_size=20)


def pytensor_step(settings, data, mode):
    """Return ``step(x, y)``, compiled, for NumPy arrays."""
    net = network.build(settings, data.n_in, data.n_classes)
    rng = pytensor.shared(np.random.default_rng(0)) if settings.policy else None
    x, y = pt.fmatrix("x"), pt.ivector("y")
    expressions = training_step(net, x, y, settings, rng)
    return pytensor.function(
        [x, y], expressions.statistics, updates=expressions.updates, mode=mode, trust_input=True
    )


class TorchStep:
    """The same step in PyTorch: one graph, one backward pass for network and policies.

    Parameters
    ----------
    settings : Experiment
    data : datasets.Dataset
    """

    def __init__(self, settings, data):
        widths = (data.n_in, *settings.n_units)
        pairs = list(itertools.pairwise(widths))
        self.hidden = [torch.nn.Linear(a, b) for a, b in pairs]
        self.policies = [torch.nn.Linear(a, b) for a, b in pairs] if settings.policy else []
        self.out = torch.nn.Linear(widths[-1], data.n_classes)
        for policy in self.policies:
            torch.nn.init.constant_(policy.bias, float(np.log(0.12 / 0.88)))
        network_layers = (*self.hidden, self.out)
        rest = [layer.bias for layer in network_layers]
        rest += [p for policy in self.policies for p in policy.parameters()]
        # Weight decay is the L2 penalty's gradient, without building the penalty's graph.
        self.optimizer = torch.optim.SGD(
            [
                {"params": [x.weight for x in network_layers], "weight_decay": 2 * settings.l2},
                {"params": rest},
            ],
            lr=settings.learning_rate,
            fused=True,
        )

    def __call__(self, x, y):
        """Make one step; return the statistics that the other columns return too."""
        s, log_pi, rates, entropies = x, 0.0, [], []
        for i, layer in enumerate(self.hidden):
            h = torch.tanh(layer(s))
            if self.policies:
                # The policy learns from log pi alone, so nothing flows to the layers below.
                z = self.policies[i](s.detach())
                sigma, softplus = torch.sigmoid(z), torch.nn.functional.softplus(z)
                u = torch.bernoulli(sigma.detach())
                log_pi = log_pi + (u * z - softplus).sum(1)
                rates.append(u.mean())
                entropies.append((softplus - sigma * z).detach().mean())
                h = h * u
            s = h
        nll = torch.nn.functional.cross_entropy(self.out(s), y, reduction="none")
        cost = nll.sum()
        if self.policies:
            c = nll.detach()
            cost = cost + ((c - c.mean()) * log_pi).mean()
        self.optimizer.zero_grad()
        cost.backward()
        self.optimizer.step()
        return torch.stack([nll.detach().mean(), *rates, *entropies]).numpy()


def median_times(steps, batches, n_turns):
    """Return the median microseconds a step, one for each of `steps`, taken in turns."""
    times = np.empty((n_turns + 1, len(steps)))
    for turn, (column, (step, convert)) in itertools.product(range(n_turns + 1), enumerate(steps)):
        mine = [tuple(map(convert, batch)) for batch in batches]
        start = time.perf_counter()
        for x, y in mine:
            step(x, y)
        times[turn, column] = (time.perf_counter() - start) / len(mine)
    return np.median(times[1:], axis=0) * 1e6  # the first turn warms up


def columns(settings, data):
    """Return a pair of step and conversion of its inputs for each column there is."""
    modes = (get_mode("NUMBA"), native.mode())
    steps = [(pytensor_step(settings, data, mode), np.asarray) for mode in modes]
    if torch is not None:
        steps.append((TorchStep(settings, data), lambda a: torch.as_tensor(a).to(_torch_dtype(a))))
    return steps


def _torch_dtype(array):
    return torch.int64 if array.dtype.kind == "i" else torch.float32


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=40, help="turns of 25 steps (default 40)")
    options = parser.parse_args()

    data = datasets.load()
    starts = range(0, 20 * N_STEPS, 20)
    batches = [(data.train.images[i : i + 20], data.train.labels[i : i + 20]) for i in starts]
    print("microseconds a step, median of", options.turns, "turns")
    if torch is None:
        print("(PyTorch is not installed: its column is left out.)")
    print(f"{'units':>8} {'policies':>8} {'threads':>7}", *(f"{c:>15}" for c in COLUMNS))
    for n_units, policy in itertools.product([(500,), (800, 800)], [False, True]):
        steps = columns(experiment(n_units, policy), data)
        for n_threads in (1, 2):
            if torch is not None:
                torch.set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                times = median_times(steps, batches, options.turns)
            label = f"{'-'.join(map(str, n_units)):>8} {'yes' if policy else 'no':>8}"
            print(label, f"{n_threads:>7}", *(f"{t:>15.0f}" for t in times), flush=True)


if __name__ == "__main__":
    main()
