"""The measurements of a benchmark: settings by columns by turns, their ratios, and the file."""

import io
import itertools
import json
from dataclasses import dataclass

import h5py
import numpy as np

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import files
from speed import machine

LABELS = {
    "numba": "this package, Numba",
    "c": "this package, C",
    "jax": "this package, JAX",
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "scan": "JAX lax.scan",
    "dense": "own kernels",
    "blas": "NumPy",
}
"""The columns, by their names in files."""
OURS = "numba"
PEERS = ("eager", "compile", "scan")
MACHINE = ("product", "copy")

_N_IN, _N_CLASSES = 784, 10  # of MNIST

_FORMAT = "reinforce-dropout benchmark, version 1"
_JSON = ("versions", "left_out")


@dataclass(frozen=True, order=True)
class Setting:
    """The work of one mini-batch.

    Attributes
    ----------
    work : str
        "step", of training, or "forward".
    n_threads : int
    n_units : tuple of int
        Widths of the hidden layers.
    batch_size : int
    policy : bool
        Whether the dense network has policies.
    instances_per_block, units_per_block, policy_rank : int
        Of the passes that skip dropped units; named as in the package's settings.
    """

    work: str
    n_threads: int
    n_units: tuple[int, ...]
    batch_size: int
    policy: bool = False
    instances_per_block: int = 1
    units_per_block: int = 1
    policy_rank: int = 0

    @property
    def widths(self):
        """Widths of the network for MNIST."""
        return _N_IN, *self.n_units, _N_CLASSES

    @property
    def net(self):
        """The widths as text: 784-500-10."""
        return "-".join(map(str, self.widths))

    @property
    def policies(self):
        """Whether there are policies, as text."""
        return "policies" if self.policy else "plain"

    def n_weights(self):
        """Return the numbers of weights of the network's layers, and of the policies."""
        sizes = [n_in * n_out for n_in, n_out in itertools.pairwise(self.widths)]
        return sizes, sizes[:-1] if self.policy else []

    def flops(self):
        r"""Return the additions and multiplications of all dense products.

        A product of (m_b, n_in) and (n_in, n_out) costs :math:`2 m_b n_{in} n_{out}`. In a training
        step each layer of the network has three: forward, gradient to the weights, and gradient to
        its input, which the first layer does without. Each policy has the first two only.
        """
        sizes, policies = self.n_weights()
        forward = sum(sizes) + sum(policies)
        n = forward if self.work == "forward" else 2 * forward + sum(sizes[1:])
        return 2 * self.batch_size * n

    def n_bytes(self):
        """Return the bytes of all weights: read once; in a step also read and written to update."""
        times = 1 if self.work == "forward" else 3
        return times * np.float32().itemsize * sum(itertools.chain(*self.n_weights()))


@dataclass
class Column:
    """The measurements of one column in one setting.

    Attributes
    ----------
    microseconds : ndarray (n_turns,)
        Of a mini-batch, or of an operation of the machine's columns; the mean over each turn.
    first, last : tuple of float
        Means of the statistics over the turn of the first round, which is not timed, and the last.
    peak_bytes : int
        The peak memory of the column's process since its start.
    process : str
        Kernels, threads and thread layer, see `machine.describe_process`.
    """

    microseconds: np.ndarray
    first: tuple
    last: tuple
    peak_bytes: int
    process: str

    def quartiles(self):
        """Return the three quartiles of the time."""
        return np.percentile(self.microseconds, (25, 50, 75))


@dataclass
class Measurement:
    """All columns in one setting, the machine's included, by name."""

    setting: Setting
    columns: dict[str, Column]

    def __post_init__(self):
        times = np.array([column.microseconds for column in self.columns.values()])
        if times.ndim != 2 or not times.size or not (np.isfinite(times) & (times > 0)).all():
            raise ValueError("these are no times of as many turns")

    def median(self, column):
        """Return the median of a column's microseconds."""
        return self.columns[column].quartiles()[1]

    def ratios(self, column, to):
        """Return the ratios of the times of two columns, round by round, (n_turns,).

        A machine that others use has slow spells, longer than a round. So they affect both columns.
        """
        return self.columns[column].microseconds / self.columns[to].microseconds

    def fastest(self, columns):
        """Return the fastest of the columns, by ratios within rounds; None if none is there."""
        present = [column for column in columns if column in self.columns]
        return min(present, key=lambda c: np.median(self.ratios(c, present[0])), default=None)


@dataclass
class Results:
    """One run.

    Attributes
    ----------
    attributes : dict
        Those of `provenance.collect`, ``left_out`` (dict from column to the reason), ``started``
        and ``ended``.
    measurements : list of Measurement
    """

    attributes: dict
    measurements: list

    def all(self, **wanted):
        """Return all measurements whose settings have these attributes."""
        return [m for m in self.measurements if vars(m.setting).items() >= wanted.items()]

    def values(self, attribute):
        """Return the values that an attribute of the settings takes, rising."""
        return sorted({getattr(m.setting, attribute) for m in self.measurements})

    def peaks(self, n_threads):
        """Return operations and bytes a second, each in the best of all turns."""
        product, copy = (
            1e-6 * min(m.columns[c].microseconds.min() for m in self.all(n_threads=n_threads))
            for c in MACHINE
        )
        return machine.PRODUCT_FLOPS / product, machine.COPY_BYTES / copy

    def bound(self, setting):
        """Return the microseconds that dense products take at the machine's peaks."""
        flops, n_bytes = self.peaks(setting.n_threads)
        return 1e6 * max(setting.flops() / flops, setting.n_bytes() / n_bytes)


def write(path, results):
    """Write results, all or nothing; raise `ReinforceDropoutError` if that fails."""
    image = io.BytesIO()
    with h5py.File(image, "w") as root:
        attributes = {"format": _FORMAT, **results.attributes}
        root.attrs.update(attributes | {name: json.dumps(attributes[name]) for name in _JSON})
        for i, measurement in enumerate(results.measurements):
            group = root.create_group(f"settings/{i:03d}")
            group.attrs.update(vars(measurement.setting))
            for name, column in measurement.columns.items():
                attributes = vars(column).copy()
                dataset = group.create_dataset(name, data=attributes.pop("microseconds"))
                dataset.attrs.update(attributes)
    files.write_whole(path, image.getvalue())


def read(path):
    """Read what `write` wrote; raise `RecordError` if it is not there or damaged."""
    try:
        with h5py.File(path) as root:
            attributes = _plain(root.attrs)
            if attributes.pop("format", None) != _FORMAT:
                raise RecordError(f"{path} holds no benchmark: delete it or move it away.")
            attributes |= {name: dict(json.loads(attributes[name])) for name in _JSON}
            return Results(attributes, [_measurement(group) for group in root["settings"].values()])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RecordError(f"{path} is missing or damaged: delete it and measure anew.") from error


def _measurement(group):
    columns = {name: Column(data[()], **_plain(data.attrs)) for name, data in group.items()}
    return Measurement(Setting(**_plain(group.attrs)), columns)


def _plain(attributes):
    """Return attributes as a dict of Python's own values, arrays as tuples."""
    values = {name: getattr(v, "tolist", lambda v=v: v)() for name, v in attributes.items()}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
