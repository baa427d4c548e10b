"""A run's record: curves, best parameters, provenance and checkpoint in one HDF5 file.

A record on disk is always whole. A new one is built in memory, and replaces the old one at once
(see `files`). A reader meanwhile, or after the writer is killed, finds the old or the new record.

The HDF5 user block is 512 bytes that HDF5 itself skips. It holds two lines of text: the format, and
the SHA-256 of the rest. It is checked first, because libhdf5 can crash on a damaged file.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import filelock
import h5py
import numpy as np

from reinforce_dropout.errors import RecordError, RecordInUseError, ReinforceDropoutError
from reinforce_dropout.results import files
from reinforce_dropout.results.upgrades import rename, upgrade

_FORMAT = "reinforce-dropout record, version "
_VERSION = 2
_JSON = ("experiment", "dimensions", "versions")
_OPTIONAL_JSON = ("resumed",)
_ATTRIBUTES = (
    *_JSON, "seed", "status", "stopped_by", "data", "data_sha256", "backend", "command",
    "git_commit", "host_cpu", "n_threads", "started", "ended",
)  # fmt: skip
_CURVES = ("train_nll", "valid_error", "test_error", "epoch_seconds")
_BEST_ATTRIBUTES = ("epoch", "valid_error", "test_error")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # bytes, the least that HDF5 allows
_COMPRESSIBLE_BYTES = 1 << 16  # below this, compression needs more for its index than it saves

_MENDS = {
    (errno.ENOSPC, errno.EDQUOT): "make room on its disk",
    (errno.EFBIG,): "raise the limit on the size of files",
    (errno.EACCES, errno.EPERM, errno.EROFS): "choose a place that you have permission for",
    (errno.ENOENT, errno.ENOTDIR): "check its name and that its folder exists",
    (errno.EISDIR,): "name a file, not a folder",
    (errno.ENAMETOOLONG,): "choose a shorter name",
}


@dataclass
class Record:
    """One run, finished or not.

    Attributes
    ----------
    attributes : dict
        ``experiment``, ``dimensions`` and ``versions`` (dicts for JSON), ``seed`` (int),
        ``status`` ("unfinished" or "finished"), ``stopped_by`` ("patience", "n_epochs" or ""),
        ``data``, ``data_sha256``, ``backend``, ``execution``, ``command``, ``git_commit``,
        ``host_cpu`` (str), ``n_threads`` (int), ``started``, ``ended`` (ISO 8601 in UTC, "" while
        unfinished). Newer records have more facts of `provenance.collect`. A resumed run has
        ``resumed``, see `provenance.resume`.
    curves : dict from str to ndarray
        One row an epoch. ``train_nll`` (epochs,) is in nats an example. ``valid_error`` and
        ``test_error`` (epochs,) are fractions, by the rule that decides. With several rules there
        is one for each, such as ``valid_error_sampled``. An error that was not evaluated after an
        epoch is NaN, see the setting ``evaluate_all``. ``epoch_seconds`` (epochs,). A system may
        have more: ``active_fraction`` (epochs, L), ``policy_entropy`` (epochs, L) in nats a
        decision.
    best : dict from str to ndarray
        The parameters of the best epoch by name (``W_1``, ``b_1``, ``Z_1``, ``o_1``, ...). Empty
        if the record keeps curves only, see `Record.curves_only`.
    best_attributes : dict
        ``epoch`` (from 1), ``valid_error`` and ``test_error`` (fractions) of `best`. Empty before
        the first epoch that counts, see `Experiment.first_counted_epoch`.
    checkpoint : dict from str to ndarray, or None
        All that training changes, by name; None if the run is finished.
    checkpoint_state : dict or None
        The rest of the checkpoint as a dict for JSON: epoch, patience, states of the generators.
    """

    attributes: dict[str, Any]
    curves: dict[str, np.ndarray]
    best: dict[str, np.ndarray]
    best_attributes: dict[str, Any]
    checkpoint: dict[str, np.ndarray] | None = None
    checkpoint_state: dict[str, Any] | None = None

    @property
    def n_epochs(self) -> int:
        """Epochs that have ended."""
        return len(self.curves.get("train_nll", ()))

    @property
    def dimensions(self) -> tuple[tuple[int, ...], int]:
        """Shape of an image, and number of classes."""
        dimensions = self.attributes["dimensions"]
        return tuple(dimensions["image_shape"]), dimensions["n_classes"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The word for each class, in the order of the predictions; empty if they are numbers."""
        return tuple(self.attributes["dimensions"].get("class_names", ()))

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, of the lowest validation error."""
        return int(self.best_attributes["epoch"])

    def curves_only(self) -> "Record":
        """Return the finished record without parameters, its curves in float32.

        It takes about a hundredth of the space. Evaluation and prediction refuse it. An unfinished
        run raises RecordError, because it needs its parameters to go on.
        """
        if self.attributes["status"] != "finished":
            raise RecordError("an unfinished run cannot go without its parameters: finish it first")
        curves = {name: curve.astype("float32") for name, curve in self.curves.items()}
        return dataclasses.replace(self, curves=curves, best={})

    def to_frame(self):
        """Return the curves as a pandas DataFrame, one row an epoch.

        The index is ``epoch``, from 1. A curve (epochs, L) gives a column for each layer, such as
        ``active_fraction_1``. Without pandas it raises ReinforceDropoutError.
        """
        try:
            import pandas
        except ImportError:
            raise ReinforceDropoutError(
                "to_frame needs pandas, which is not here: install it with pip install pandas."
            ) from None
        columns = {}
        for name, curve in self.curves.items():
            if curve.ndim == 1:
                columns[name] = curve
                continue
            columns |= {f"{name}_{i + 1}": curve[:, i] for i in range(curve.shape[1])}
        return pandas.DataFrame(columns, pandas.RangeIndex(1, self.n_epochs + 1, name="epoch"))


def write(path: str | os.PathLike, record: Record) -> None:
    """Write a record to `path`, or to the target of a link there, all or nothing.

    Equal records give equal bytes. Hold `lock` on `path` if another process could write, too. If
    the file system refuses, it raises RecordError, and the old record is untouched.
    """
    image = _encode(record)
    try:
        files.replace(path, image)
    except OSError as error:
        raise _trouble("write", path, error) from error


def read(path: str | os.PathLike) -> Record:
    """Read a record, bit for bit. It needs no lock.

    A file that is missing, no record, damaged or of a newer version raises RecordError.
    """
    try:
        with open(path, "rb") as file:
            seal = file.read(_USER_BLOCK)
            version = _version(seal, path)
            image = file.read()
    except OSError as error:
        raise _trouble("read", path, error) from error
    if seal != _seal(image, version):
        raise RecordError(
            f"{path} is damaged or cut short: use a copy of it or run the experiment again"
        )
    return _decode(seal + image, path)


def refuse_unwritable(path: str | os.PathLike) -> None:
    """Refuse a path that cannot be written, or is read-only, before hours of training."""
    target = files.real(path)
    try:
        folder_mode = target.parent.stat().st_mode
        if target.exists() and not target.is_file():
            raise RecordError(f"{path} is a folder or a device: name a file")
        # A rename over a file needs no permission on it. So look at the mode: a user who takes
        # all write permission away wants to keep the record.
        if target.exists() and target.stat().st_mode & 0o222 == 0:
            raise RecordError(f"{path} is read-only: name another file or run chmod u+w on it")
        with contextlib.suppress(FileNotFoundError):
            files.new_name(target).lstat()  # the name could be too long
    except OSError as error:
        raise _trouble("write", path, error) from error
    if not stat.S_ISDIR(folder_mode) or not os.access(target.parent, os.W_OK | os.X_OK):
        raise RecordError(f"the folder of {path} cannot be written in: choose another")


@contextlib.contextmanager
def lock(path: str | os.PathLike) -> Iterator[None]:
    """Keep every other process from training into `path` while the context lasts.

    The lock ends with the process. Readers need none.

    Raises
    ------
    RecordInUseError
        Another process holds the lock.
    RecordError
        `refuse_unwritable` refuses `path`.
    """
    refuse_unwritable(path)  # filelock would make a folder out of a mistyped name
    target = files.real(path)
    # The lock file stays. If it were removed, one process could lock the removed file and another
    # one its successor. No soft lock: that is a file, which outlives kill -9.
    held = filelock.FileLock(
        target.parent / f".{target.name}.lock", blocking=False, fallback_to_soft=False
    )
    try:
        held.acquire()
    except filelock.Timeout:
        raise RecordInUseError(
            f"another process is training into {path}: wait for it or name another file"
        ) from None
    except OSError as error:
        raise _trouble("lock", path, error) from error
    try:
        with contextlib.suppress(OSError):  # the folder may be writable but not readable
            files.remove_leftovers(target)
        yield
    finally:
        held.release()


def _encode(record: Record) -> memoryview:
    """Return the HDF5 image of a record. It does not depend on the order in its dicts."""
    # Shuffle and gzip save 15 % of float32 parameters, but make a write ten times slower. So only
    # a finished record has them, and not one that every checkpoint rewrites.
    compress = record.checkpoint is None
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=_USER_BLOCK) as root:
        attributes = {"format": f"{_FORMAT}{_VERSION}", **record.attributes}
        attributes |= {name: _to_json(attributes[name]) for name in _json_names(attributes)}
        _fill(root, attributes, {}, compress)
        _fill(root.create_group("curves"), {}, record.curves, compress)
        _fill(root.create_group("best"), record.best_attributes, record.best, compress)
        if record.checkpoint is not None:
            state = {"state": _to_json(record.checkpoint_state)}
            _fill(root.create_group("checkpoint"), state, record.checkpoint, compress)
    view = image.getbuffer()
    view[:_USER_BLOCK] = _seal(view[_USER_BLOCK:])
    return view


def _seal(image: bytes | memoryview, version: int = _VERSION) -> bytes:
    """Return the user block for an HDF5 image."""
    text = f"{_FORMAT}{version}\nsha256 {hashlib.sha256(image).hexdigest()}\n"
    return text.encode().ljust(_USER_BLOCK, b"\0")


def _json_names(attributes: dict) -> list[str]:
    return [name for name in (*_JSON, *_OPTIONAL_JSON) if name in attributes]


def _to_json(value: dict | list | None) -> str:
    return json.dumps(value, sort_keys=True)


def _fill(group: h5py.Group, attributes: dict, arrays: dict, compress: bool) -> None:
    for name, value in sorted(attributes.items()):
        group.attrs[name] = value
    for name, array in sorted(arrays.items()):
        packed = compress and array.nbytes >= _COMPRESSIBLE_BYTES
        # A single chunk, because arrays are always read whole.
        filters = {"chunks": array.shape, "shuffle": True, "compression": "gzip"} if packed else {}
        group.create_dataset(name, data=array, track_times=False, **filters)


def _version(seal: bytes, path: str | os.PathLike) -> int:
    """Return the version of a record; refuse other files."""
    if seal.startswith(_SIGNATURE):
        raise RecordError(f"{path} is an HDF5 file but no reinforce-dropout record: name a record")
    if not (found := re.match(rf"{_FORMAT}(\d+)\n".encode(), seal)):
        raise RecordError(f"{path} is not an HDF5 file that a run wrote: name a record")
    if (version := int(found[1])) > _VERSION:
        raise RecordError(
            f"{path} is a record of version {version} and this program reads version {_VERSION}: "
            "upgrade reinforce-dropout"
        )
    return version


def _decode(image: bytes, path: str | os.PathLike) -> Record:
    with h5py.File(io.BytesIO(image), "r") as root:
        first_version = root.attrs.get("format") == f"{_FORMAT}1"
        _refuse_incomplete(root, path, {"dimensions"} if first_version else set())
        attributes, curves = _attributes(root), _arrays(root["curves"])
        del attributes["format"]
        attributes |= {name: json.loads(attributes[name]) for name in _json_names(attributes)}
        record = Record(attributes, curves, _arrays(root["best"]), _attributes(root["best"]))
        if "checkpoint" in root:
            record.checkpoint = _arrays(root["checkpoint"])
            record.checkpoint_state = json.loads(root["checkpoint"].attrs["state"])
    if first_version:
        upgrade(record)
    rename(record.attributes["experiment"])
    if len({curve.shape[:1] for curve in record.curves.values()}) != 1:
        raise RecordError(f"{path} has curves of unequal length: run the experiment again")
    return record


def _refuse_incomplete(root: h5py.File, path: str | os.PathLike, optional: set) -> None:
    needed = [name for name in ("format", *_ATTRIBUTES) if name not in optional]
    missing = [name for name in needed if name not in root.attrs]
    missing += [f"curves/{name}" for name in _CURVES if f"curves/{name}" not in root]
    if "best" not in root:
        missing.append("best")
    elif len(root["best"]):  # empty before the first epoch has ended
        missing += [f"best.{k}" for k in _BEST_ATTRIBUTES if k not in root["best"].attrs]
    if "checkpoint" in root and "state" not in root["checkpoint"].attrs:
        missing.append("checkpoint.state")
    if missing:
        raise RecordError(f"{path} lacks {', '.join(missing)}: run the experiment again")


def _attributes(group: h5py.Group) -> dict[str, Any]:
    values = group.attrs.items()
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in values}


def _arrays(group: h5py.Group) -> dict[str, np.ndarray]:
    return {name: np.asarray(dataset[()]) for name, dataset in group.items()}


def _trouble(verb: str, path: str | os.PathLike, error: OSError) -> RecordError:
    mends = (mend for numbers, mend in _MENDS.items() if error.errno in numbers)
    mend = next(mends, "check its disk or choose another place")
    return RecordError(f"cannot {verb} {path} ({error.strerror or error}): {mend}")
