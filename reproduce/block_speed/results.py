"""What a run of `block_speedup.py` has measured, and its file."""

import io
import itertools
import json
from dataclasses import dataclass

import h5py
import numpy as np
from result_files import opened, plain
from speed.results import net_name, net_widths

from reinforce_dropout import report

NEVER, ALWAYS = 0.0, np.inf
"""What `break_even` returns when no rate pays, or every one."""

_TEXTS = ("backend", "command", "git_commit", "host_cpu", "started", "ended")
_SECONDS = ("dense", "given", "counted")
_FORMAT = "reinforce-dropout block speed-up, version 1"


@dataclass(frozen=True)
class Setting:
    """What is propagated, through which network.

    Attributes
    ----------
    n_threads : int
    n_units : tuple of int
        Widths of the hidden layers.
    n_images : int
        Propagated at once.
    instances_per_block : int
    """

    n_threads: int
    n_units: tuple[int, ...]
    n_images: int
    instances_per_block: int

    @property
    def net(self):
        """The network's widths as text: 784-500-10."""
        return net_name(self.n_units)

    @property
    def blocks(self):
        """What shares a mask, as text."""
        if self.n_images == 1:
            return "a single image"
        return f"blocks of {self.instances_per_block}"


@dataclass
class Forward:
    """Seconds of a forward pass in one setting, one number a turn.

    Attributes
    ----------
    setting : Setting
    rates : ndarray (n_rates,)
        Fractions of active units that were wanted, rising.
    active : ndarray (n_rates,)
        Fractions of active units when the policies decide, the mean over the hidden layers.
    dense : ndarray (n_turns,)
        Of the network without policies: 1 in every speed-up.
    given : ndarray (n_rates, n_turns)
        By blocks, with masks drawn beforehand.
    counted : ndarray (n_rates, n_turns)
        By blocks, the policies' logits, probabilities and draws included.
    """

    setting: Setting
    rates: np.ndarray
    active: np.ndarray
    dense: np.ndarray
    given: np.ndarray
    counted: np.ndarray

    def __post_init__(self):
        times = {"dense": (), "given": (len(self.rates),), "counted": (len(self.rates),)}
        for name, leading in times.items():
            seconds = getattr(self, name)
            if seconds.shape != (*leading, len(self.dense)) or seconds.size == 0:
                raise ValueError(f"{name} has shape {seconds.shape}")
            if not (np.isfinite(seconds).all() and (seconds > 0).all()):
                raise ValueError(f"{name} holds what is no time")
        if self.active.shape != self.rates.shape or (np.diff(self.rates) <= 0).any():
            raise ValueError("rates that do not rise")

    def seconds(self, policy):
        """Return `counted` if `policy` is to be counted, else `given`."""
        return self.counted if policy else self.given

    def speedups(self, policy):
        """Return the dense network's time over that by blocks, median of all turns, (n_rates,)."""
        return np.median(self.dense / self.seconds(policy), axis=1)

    def speedup(self, rate, policy):
        """Return the speed-up at one rate; None when it was not measured."""
        (places,) = np.nonzero(np.isclose(self.rates, rate))
        return float(self.speedups(policy)[places[0]]) if places.size else None

    def break_even(self, policy):
        """Return the rate above which blocks do not pay, see `break_even`."""
        return break_even(self.rates, self.speedups(policy))

    def spread(self):
        """Return the distances of the quartiles from their median, relative to it, as a list."""
        times = np.concatenate([self.dense[None], self.given, self.counted])
        low, median, high = np.percentile(times, (25, 50, 75), axis=1)
        return list(np.maximum(high - median, median - low) / median)


@dataclass
class Training:
    """Seconds of a training step whose mini-batch is one block, one number a turn.

    Attributes
    ----------
    n_threads : int
    n_units : tuple of int
        Widths of the hidden layers.
    rate : float
        Fraction of active units.
    dense : ndarray (n_turns,)
        Of the network without policies: 1 in every speed-up.
    given : ndarray (n_turns,)
        Block-sparse, with masks drawn beforehand.
    counted : ndarray (n_turns,)
        Block-sparse, the policies' draws and their learning included.
    """

    n_threads: int
    n_units: tuple[int, ...]
    rate: float
    dense: np.ndarray
    given: np.ndarray
    counted: np.ndarray

    def __post_init__(self):
        for name in ("dense", "given", "counted"):
            seconds = getattr(self, name)
            if seconds.shape != self.dense.shape or not (seconds > 0).all() or seconds.size == 0:
                raise ValueError(f"{name} holds what is no time")

    def speedup(self, policy):
        """Return the dense step's time over that of the block-sparse one, median of all turns."""
        return float(np.median(self.dense / (self.counted if policy else self.given)))


def break_even(rates, speedups):
    """Return the highest rate at which the speed-up is 1, between two rates by a power law.

    Parameters
    ----------
    rates : ndarray (n_rates,)
        Rising.
    speedups : ndarray (n_rates,)

    Returns
    -------
    float
        `ALWAYS` when the highest rate still pays, `NEVER` when none does.
    """
    paying = np.flatnonzero(speedups >= 1)
    if paying.size == 0:
        return NEVER
    last = paying[-1]
    if last == len(rates) - 1:
        return ALWAYS
    x, y = np.log(rates[last : last + 2]), np.log(speedups[last : last + 2])
    return float(np.exp(x[0] - y[0] * (x[1] - x[0]) / (y[1] - y[0])))


def describe_break_even(rate):
    """Say a rate of `break_even` in words."""
    return {NEVER: "never", ALWAYS: "always"}.get(
        rate, f"{rate:.2%}" if rate < 0.02 else f"{rate:.0%}"
    )


def flop_bound(n_units, rates):
    """Return the dense network's multiplications over those of its active units.

    Parameters
    ----------
    n_units : tuple of int
    rates : ndarray (n_rates,)

    Returns
    -------
    ndarray (n_rates,)
    """
    sizes = np.array([n_in * n_out for n_in, n_out in itertools.pairwise(net_widths(n_units))])
    # Between two hidden layers both sides are sparse; the images and the classes are not.
    sides = np.array([1, *[2] * (len(n_units) - 1), 1])
    return sizes.sum() / (sizes * np.asarray(rates)[:, None] ** sides).sum(axis=1)


@dataclass
class Results:
    """One run.

    Attributes
    ----------
    attributes : dict
        Those of `provenance.collect`, ``backend``, ``started`` and ``ended``.
    forward : list of Forward
    training : list of Training
    """

    attributes: dict
    forward: list
    training: list

    def threads(self):
        """Return the numbers of threads."""
        return sorted({f.setting.n_threads for f in self.forward})

    def nets(self):
        """Return the widths of the hidden layers of each network."""
        return list(dict.fromkeys(f.setting.n_units for f in self.forward))

    def find(self, n_threads, n_units, instances_per_block, single=False):
        """Return the `Forward` of a setting; None when it was not measured."""
        for forward in self.forward:
            setting = forward.setting
            if (
                (setting.n_threads, setting.n_units) == (n_threads, n_units)
                and setting.instances_per_block == instances_per_block
                and (setting.n_images == 1) == single
            ):
                return forward
        return None


def write(path, results):
    """Write results, all or nothing.

    Raises
    ------
    ReinforceDropoutError
        The place cannot be written in.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as root:
        versions = json.dumps(results.attributes["versions"])
        root.attrs.update({"format": _FORMAT, **results.attributes, "versions": versions})
        for name in ("forward", "training"):
            root.create_group(name)
        for i, forward in enumerate(results.forward):
            group = root.create_group(f"forward/{i:03d}")
            arrays = vars(forward).copy()
            group.attrs.update(vars(arrays.pop("setting")))
            for name, array in arrays.items():
                group[name] = array
        for i, training in enumerate(results.training):
            group = root.create_group(f"training/{i:03d}")
            for name, value in vars(training).items():
                (group if name in _SECONDS else group.attrs)[name] = value
    report.write_whole(path, image.getvalue())


def read(path):
    """Read results.

    Raises
    ------
    RecordError
        There is no such file, or it is not one of `write`.
    """
    with opened(path, _FORMAT, "block speed-ups", "block_speedup.py") as (root, attributes):
        attributes["versions"] = dict(json.loads(attributes["versions"]))
        forward = [_forward(group) for group in root["forward"].values()]
        if not forward or not {*_TEXTS} <= attributes.keys():
            raise ValueError("something is missing")
        training = [Training(**plain(g.attrs), **_arrays(g)) for g in root["training"].values()]
        return Results(attributes, forward, training)


def _forward(group):
    return Forward(Setting(**plain(group.attrs)), **_arrays(group))


def _arrays(group):
    return {name: dataset[()] for name, dataset in group.items()}
