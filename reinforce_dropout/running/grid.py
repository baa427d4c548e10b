"""The runs of a sweep: presets, a grid of settings or a random search, and seeds."""

import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reinforce_dropout.errors import SweepError
from reinforce_dropout.systems import preset
from reinforce_dropout.systems.settings import as_text


class Run(NamedTuple):
    """One run of a sweep.

    Attributes
    ----------
    name : str
        Preset, grid values and seed, as in ``policy-500-lam=0.001-seed2``. The record's file name.
    preset : str
    settings : dict from str to Any
        What differs from the preset, as values or text, see `Experiment.replace`.
    options : dict from str to str
        ``data`` and ``execution`` of `training.train`, where they differ from those of the sweep.
    """

    name: str
    preset: str
    settings: dict[str, Any]
    options: dict[str, str] = {}

    def experiment(self):
        """Return the experiment."""
        return preset(self.preset).replace(**self.settings)


def expand(
    name: str,
    grid: Mapping[str, Sequence] | None = None,
    seeds: Iterable[int] = (1,),
    settings: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Return one run for each point of a grid and each seed.

    Parameters
    ----------
    name : str
        Of a preset.
    grid : dict from str to sequence, optional
        Values of each field; every combination of all fields is a point.
    seeds : iterable of int
    settings : dict from str to Any, optional
        Changes that all runs share.

    Raises
    ------
    ReinforceDropoutError
        There is no such preset or field, a value is out of range, a field has no values, or two
        runs are equal.
    """
    grid = dict(grid or {})
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    return _of_points(name, grid, points, seeds, settings)


def draw(
    name: str,
    space: Mapping[str, Sequence[float]],
    n_trials: int,
    seeds: Iterable[int] = (1,),
    settings: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Return one run for each of some points drawn at random, and each seed: a random search.

    Parameters
    ----------
    name, seeds, settings
        As for `expand`.
    space : dict from str to (float, float)
        Bounds of each field, positive. Its logarithm is uniform between theirs. Values are rounded
        to two digits.
    n_trials : int
        Number of points. The same call draws the same points.

    Raises
    ------
    ReinforceDropoutError
        As for `expand`, or bounds are not two positive numbers that rise,
        or there are no trials.

    Notes
    -----
    Bergstra and Bengio (2012): where few of several fields matter, random points try more values of
    these than a grid of as many points.
    """
    if n_trials < 1:
        raise SweepError(f"{n_trials} trials are no random search: ask for 1 or more.")
    for field, bounds in space.items():
        numbers = all(type(bound) in (int, float) for bound in bounds)
        if len(bounds) != 2 or not numbers or not 0 < bounds[0] < bounds[1]:
            raise SweepError(f"the space of {field} needs two positive bounds that rise.")
    rng = np.random.default_rng(0)
    points = [
        {
            field: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.1e}")
            for field, (low, high) in space.items()
        }
        for _ in range(n_trials)
    ]
    return _of_points(name, space, points, seeds, settings)


def _of_points(name, grid, points, seeds, settings):
    """Return one run for each of the points, which choose fields of `grid`, and each seed."""
    settings, seeds = dict(settings or {}), list(seeds)
    for field in ("name", "seed"):
        if field in grid:
            raise SweepError(f"{field} cannot be a field of the grid: name seeds with --seeds.")
        if field in settings:
            raise SweepError(f"{field} cannot be set for all runs: name seeds with --seeds.")
    for field, values in {**grid, "seeds": seeds}.items():
        if not values:
            raise SweepError(f"{field} has no values: name one or more.")
        if field in settings:
            raise SweepError(f"{field} is both set and in the grid: keep one of them.")
    runs = []
    for chosen in points:
        base = preset(name).replace(**settings, **chosen)
        values = base.as_dict()
        label = "".join(f"-{field}={as_text(values[field])}" for field in chosen)
        for seed in seeds:
            seed = base.replace(seed=seed).seed  # typed, and in its range
            changes = {**settings, **chosen, "seed": seed}
            runs.append(Run(f"{name}{label}-seed{seed}", name, changes))
    return unique(runs)


def unique(runs: list[Run]) -> list[Run]:
    """Return the runs; refuse two that would go to one file."""
    seen = set()
    for run in runs:
        if run.name in seen:
            raise SweepError(f"{run.name} stands twice in the sweep: name each value once.")
        seen.add(run.name)
    return runs


def read(path: Path, seeds: Iterable[int] | None, settings: Mapping[str, Any]) -> list[Run]:
    """Return the runs that a TOML file lists in tables ``[[runs]]``.

    Each table has a ``preset``. It may have ``seeds`` (a list, or text as in "1-5"), ``set`` (a
    table of settings), ``grid`` (a table of lists), and `Run.options`. Instead of a grid it may
    have a ``space`` (a table of bounds) and the number of ``trials`` of a random search, see
    `draw`. `seeds` replace those in the file unless they are None. `settings` are added to those in
    the file.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise SweepError(f"cannot read {path} ({error.strerror}): name a TOML file.") from error
    except ValueError as error:
        raise SweepError(f"{path} is not TOML ({error}): correct it.") from error
    tables = content.pop("runs", None)
    if content or not isinstance(tables, list) or not tables:
        raise SweepError(f"{path} must hold tables [[runs]] and nothing else.")
    return unique([run for table in tables for run in _of_table(table, path, seeds, settings)])


_OPTIONS = ("data", "execution")
_TABLE = {"preset": str, "seeds": (list, str), "set": dict, "grid": dict}
_TABLE |= {"space": dict, "trials": int}
_TABLE |= dict.fromkeys(_OPTIONS, str)


def _of_table(table, path, seeds, settings):
    """Return the runs of one table of the file."""
    fits = isinstance(table, dict) and "preset" in table and table.keys() <= _TABLE.keys()
    if not fits or not all(isinstance(value, _TABLE[key]) for key, value in table.items()):
        raise SweepError(
            f"each [[runs]] of {path} must have a preset, and may have seeds (a list), set, grid "
            "and space (tables), trials (a whole number), data and execution (texts)."
        )
    own = table.get("seeds", [1])
    own = parse_seeds(own) if isinstance(own, str) else own
    own = own if seeds is None else seeds
    grid, space = table.get("grid", {}), table.get("space", {})
    if not all(isinstance(values, list) for values in [*grid.values(), *space.values()]):
        raise SweepError(f"each field of a grid or a space in {path} must have a list of values.")
    if ("trials" in table) != bool(space) or (space and grid):
        raise SweepError(f"a random search in {path} needs space and trials, and no grid.")
    changes = {**table.get("set", {}), **settings}
    options = {key: table[key] for key in _OPTIONS if key in table}
    if space:
        runs = draw(table["preset"], space, table["trials"], own, changes)
    else:
        runs = expand(table["preset"], grid, own, changes)
    return [run._replace(options=options) for run in runs]


def parse_grid(texts: Iterable[str]) -> dict[str, list[str]]:
    """Read ``FIELD=V1,V2,...`` texts. Semicolons separate values that contain commas."""
    grid = {}
    for text in texts:
        field, equals, listed = text.partition("=")
        field = field.strip()
        if not (field and equals):
            raise SweepError(f"the grid {text!r} is not of the form FIELD=V1,V2,...")
        if field in grid:
            raise SweepError(f"the grid has {field} twice: list all its values in one --grid.")
        between = ";" if ";" in listed else ","
        # A semicolon at the end marks a single value that contains commas: n_units=800,800;
        values = listed.removesuffix(";").split(between)
        grid[field] = [value.strip() for value in values]
        if not all(grid[field]):
            raise SweepError(f"the grid {text!r} has an empty value: write FIELD=V1,V2,...")
    return grid


def parse_seeds(text: str) -> list[int]:
    """Read seeds such as ``1-5`` or ``1,3,7-9``."""
    seeds = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,20})\s*(?:-\s*(\d{1,20})\s*)?", part)
        if not found:
            raise SweepError(f"the seeds {text!r} are not of the form 1-5 or 1,3,7.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise SweepError(f"the seeds {part.strip()} are an empty range: write {last}-{first}.")
        if last - first >= 100_000:
            raise SweepError(f"the seeds {part.strip()} are more than 100000: name fewer.")
        seeds += range(first, last + 1)
    return seeds


def work(run: Run) -> float:
    """Estimate the time of a run relative to others: multiplications an example times epochs.

    The sizes of input and output are those of MNIST, which is enough to order the runs.
    """
    settings = run.experiment().as_dict()
    widths = [784, *settings.get("n_units", ())]
    hidden = sum(a * b for a, b in itertools.pairwise(widths))
    policies = 2 if "policy_learning_rate" in settings else 1
    return (policies * hidden + 10 * widths[-1]) * settings.get("n_epochs", 1)
