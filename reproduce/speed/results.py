"""What a run of `training_speed.py` has measured, and its file."""

import io
import itertools
import json
from dataclasses import dataclass

import h5py
import numpy as np
from result_files import opened, plain

from reinforce_dropout import report
from speed import machine

LABELS = {
    "numba": "this package, Numba",
    "c": "this package, C",
    "jax": "this package, JAX",
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "scan": "JAX lax.scan",
}
"""The columns, by their names in files."""

PEERS = ("eager", "compile", "scan")
MACHINE = ("product", "copy")

_N_IN, _N_CLASSES = 784, 10  # of MNIST

_FORMAT = "reinforce-dropout training speed, version 1"
_JSON = ("versions", "left_out")


def net_widths(n_units):
    """Return the widths of a network for MNIST from those of its hidden layers."""
    return _N_IN, *n_units, _N_CLASSES


def net_name(n_units):
    """Return the widths of a network for MNIST as text: 784-500-10."""
    return "-".join(map(str, net_widths(n_units)))


@dataclass(frozen=True)
class Setting:
    """What one step is made of.

    Attributes
    ----------
    n_threads : int
    n_units : tuple of int
        Widths of the hidden layers.
    batch_size : int
    policy : bool
    """

    n_threads: int
    n_units: tuple[int, ...]
    batch_size: int
    policy: bool

    @property
    def net(self):
        """The network's widths as text: 784-500-10."""
        return net_name(self.n_units)

    @property
    def policies(self):
        """Whether there are policies, as text."""
        return "policies" if self.policy else "plain"

    def _sizes(self):
        """Return the numbers of weights of the network's layers, and of the policies."""
        sizes = [n_in * n_out for n_in, n_out in itertools.pairwise(net_widths(self.n_units))]
        return sizes, sizes[:-1] if self.policy else []

    def flops(self):
        r"""Return the additions and multiplications of all products that a step needs.

        A product of (m_b, n_in) and (n_in, n_out) costs :math:`2 m_b n_{in} n_{out}`. Each layer of
        the network has three: forward, gradient to the weights, and gradient to its input, which
        the first layer does without. Each policy has the first two only.
        """
        sizes, policies = self._sizes()
        return 2 * self.batch_size * (3 * sum(sizes) - sizes[0] + 2 * sum(policies))

    def n_bytes(self):
        """Return the bytes of all weights, read once forward, read and written once to update."""
        sizes, policies = self._sizes()
        return 3 * np.float32().itemsize * (sum(sizes) + sum(policies))


@dataclass
class Turns:
    """What one column has done in one setting.

    Attributes
    ----------
    microseconds : ndarray (n_turns,)
        Time of a step (of the machine's columns: of the operation), the mean over each turn.
    nll : tuple of float
        Nats an example, the means over the first round's turn, which counts for nothing else, and
        over the last.
    active_fraction : float
        Mean over the hidden layers in the last turn; 1 without policies.
    peak_bytes : int
        The most memory that the column's process has had since its start.
    """

    microseconds: np.ndarray
    nll: tuple
    active_fraction: float
    peak_bytes: int

    def quartiles(self):
        """Return the three quartiles of the time."""
        return np.percentile(self.microseconds, (25, 50, 75))

    def median(self):
        """Return the median of the time."""
        return self.quartiles()[1]


@dataclass
class Measurement:
    """All columns' turns in one setting.

    Attributes
    ----------
    setting : Setting
    turns : dict from str to Turns
        By column, those of the machine included.
    """

    setting: Setting
    turns: dict

    def ratios(self, column, to):
        """Return the times of one column over those of another, round by round.

        A machine that others use has slow spells, longer than a round: they count for both.

        Returns
        -------
        ndarray (n_turns,)
        """
        return self.turns[column].microseconds / self.turns[to].microseconds


@dataclass
class Results:
    """One run.

    Attributes
    ----------
    attributes : dict
        Those of `provenance.collect`, ``auto`` (the backend that "auto" means), ``left_out`` (dict
        from column to the reason), ``started`` and ``ended``.
    measurements : list of Measurement
    """

    attributes: dict
    measurements: list

    def columns(self):
        """Return the columns other than the machine's that were measured."""
        found = {column for m in self.measurements for column in m.turns}
        return [column for column in LABELS if column in found]

    def threads(self):
        """Return the numbers of threads."""
        return sorted({m.setting.n_threads for m in self.measurements})

    def peaks(self, n_threads):
        """Return operations and bytes a second, each in the best of all turns."""
        turns = [m.turns for m in self.measurements if m.setting.n_threads == n_threads]
        product, copy = (
            1e-6 * min(t[column].microseconds.min() for t in turns) for column in MACHINE
        )
        return machine.PRODUCT_FLOPS / product, machine.COPY_BYTES / copy

    def ratios(self, measurement, to):
        """Return the times of this package's own choice of backend over others, round by round.

        Parameters
        ----------
        measurement : Measurement
        to : str
            "best peer" (the one with the highest median), "PyTorch eager" or "bound".

        Returns
        -------
        ndarray (n_turns,) or None
            None when the other was not measured.
        """
        ours = self.attributes["auto"]
        if to == "bound":
            return measurement.turns[ours].microseconds / self.bound(measurement.setting)
        columns = PEERS if to == "best peer" else ("eager",)
        ratios = [measurement.ratios(ours, c) for c in columns if c in measurement.turns]
        return max(ratios, key=np.median, default=None)

    def bound(self, setting):
        """Return the microseconds that a step with dense products takes at the machine's peaks."""
        flops, n_bytes = self.peaks(setting.n_threads)
        return 1e6 * max(setting.flops() / flops, setting.n_bytes() / n_bytes)


def write(path, results):
    """Write results, all or nothing.

    Raises
    ------
    ReinforceDropoutError
        The place cannot be written in.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as root:
        attributes = {"format": _FORMAT, **results.attributes}
        root.attrs.update(attributes | {name: json.dumps(attributes[name]) for name in _JSON})
        for i, measurement in enumerate(results.measurements):
            group = root.create_group(f"settings/{i:03d}")
            group.attrs.update(vars(measurement.setting))
            for column, turns in measurement.turns.items():
                attributes = vars(turns).copy()
                dataset = group.create_dataset(column, data=attributes.pop("microseconds"))
                dataset.attrs.update(attributes)
    report.write_whole(path, image.getvalue())


def read(path):
    """Read results.

    Raises
    ------
    RecordError
        There is no such file, or it is not one of `write`.
    """
    with opened(path, _FORMAT, "training speeds", "training_speed.py") as (root, attributes):
        attributes |= {name: json.loads(attributes[name]) for name in _JSON}
        measurements = [_measurement(group) for group in root["settings"].values()]
        return Results(attributes, measurements)


def _measurement(group):
    turns = {c: Turns(dataset[()], **plain(dataset.attrs)) for c, dataset in group.items()}
    return Measurement(Setting(**plain(group.attrs)), turns)
