"""Where a result comes from: the command, code, versions and machine that made it."""

import importlib.metadata
import logging
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import scipy.linalg.blas  # noqa: F401 - only a BLAS that is loaded can be asked for its threads
import threadpoolctl

from reinforce_dropout import __version__

_PACKAGE = Path(__file__).resolve().parent
_DISTRIBUTIONS = (
    "pytensor", "numpy", "scipy", "numba", "llvmlite", "jax", "jax-cuda12-plugin", "h5py",
)  # fmt: skip
_VARIABLES = ("PYTENSOR_FLAGS", "NUMBA_", "OPENBLAS_")
"""Beginnings of the names of environment variables that decide what is compiled."""
_DECIDES_BITS = (
    "git_commit", "host_cpu", "versions", "processor", "cpu_features", "vector_bytes",
    "environment",
)  # fmt: skip
"""Facts with which the rounding of a run can change."""


def collect(command: Sequence[str]) -> dict:
    """Describe the run that `command` started, as attributes of its record.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments, as in ``sys.argv``; at least the program.

    Returns
    -------
    dict
        ``command`` (str, to be pasted into a shell; the program without its folder, which is
        the machine's own, the arguments as typed), ``git_commit`` (see `git_commit`),
        ``host_cpu`` (str), ``n_threads`` (int, threads that BLAS uses), ``versions`` (dict from
        name to version; a package that is not installed is left out), ``processor`` (str, its
        family, model and stepping where the system says them), ``environment`` (str, the variables
        that decide what is compiled). Where Numba works also ``cpu_features``
        (str, LLVM's name of the processor, then what it can do), ``vector_bytes`` (int, of our
        kernels) and ``threading_layer`` (str, Numba's).
    """
    program, *arguments = command
    return {
        "command": _as_utf8(shlex.join([os.path.basename(program), *arguments])),
        "git_commit": git_commit(_PACKAGE),
        "host_cpu": _host_cpu(),
        "n_threads": _n_threads(),
        "versions": _versions(),
        **_processor(),
        "environment": _environment(),
    }


def resume(attributes: dict, facts: dict) -> dict:
    """Note that a run goes on, and warn where its numbers may not be those of an unbroken run.

    Parameters
    ----------
    attributes : dict
        Of the record, which keep the facts of the run's beginning.
    facts : dict
        As `collect` returns them now.

    Returns
    -------
    dict
        ``resumed``: a list with an entry for each continuation, ``time`` (ISO 8601 in UTC) and the
        facts that differ from those of the beginning. An older record lacks some facts, which then
        count as equal.
    """
    changed = {
        name: value
        for name, value in facts.items()
        if name != "n_threads" and attributes.get(name, value) != value  # n_threads is kept
    }
    if deciding := [name for name in _DECIDES_BITS if name in changed]:
        logging.getLogger(__name__).warning(
            "The run goes on although %s differ from its beginning, so its numbers may not be "
            "those of a run that was never stopped.",
            ", ".join(deciding),
        )
    return {"resumed": [*attributes.get("resumed", []), {"time": now(), **changed}]}


def now() -> str:
    """Return the present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_commit(folder: Path) -> str:
    """Return the commit of the checkout that `folder`'s Python files belong to.

    Parameters
    ----------
    folder : Path
        A folder with an ``__init__.py``.

    Returns
    -------
    str
        The full hash, with ``-dirty`` behind it when tracked files of the checkout differ from
        it; empty outside a checkout, before its first commit, or without git.
    """
    try:
        # A package installed below somebody else's checkout (a virtual environment, say) lies in
        # it without belonging to it: only a tracked file proves that the commit is ours.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--abbrev=64", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    # A git hook exports GIT_DIR and its kin, which would point away from `folder`.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # Without optional locks a run that starts does not get in the way of a commit being made.
    finished = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return finished.stdout.strip()


def _as_utf8(text: str) -> str:
    # An argument that is not UTF-8 reaches Python as lone surrogates, which no file can hold.
    return os.fsencode(text).decode("utf-8", "replace")


def _host_cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str:
    """Return an entry of Linux's description of the first processor, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")


def _processor() -> dict:
    """Return what our kernels are compiled for, on which the rounding of sums depends."""
    numbers = ("cpu family", "model", "stepping")
    known = [f"{name} {_cpuinfo(name)}" for name in numbers if _cpuinfo(name)]
    found = {"processor": ", ".join([platform.machine(), *known])}
    try:
        import llvmlite.binding as llvm
        import numba

        from reinforce_dropout.native.vectors import VECTOR_BYTES

        numba.get_num_threads()  # the threading layer is chosen at the first question
        layer = numba.threading_layer()
    except Exception:  # the other backends work without Numba, or with one unfit for NumPy
        return found
    features = sorted(name for name, there in llvm.get_host_cpu_features().items() if there)
    return found | {
        "cpu_features": " ".join([llvm.get_host_cpu_name(), *features]),
        "vector_bytes": VECTOR_BYTES,
        "threading_layer": layer,
    }


def _environment() -> str:
    """Return the variables that decide what is compiled: folders and threads do not."""
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) and not name.endswith(("_DIR", "_NUM_THREADS"))
    }
    if "PYTENSOR_FLAGS" in found:
        flags = found["PYTENSOR_FLAGS"].split(",")
        kept = [flag for flag in flags if "compiledir" not in flag.partition("=")[0]]
        found["PYTENSOR_FLAGS"] = ",".join(kept)
    return _as_utf8(shlex.join(f"{name}={value}" for name, value in found.items()))


def _n_threads() -> int:
    pools = threadpoolctl.threadpool_info()
    wanted = max((p["num_threads"] for p in pools if p["user_api"] == "blas"), default=1)
    if hasattr(os, "sched_getaffinity"):  # a pool is not shrunk when the process is pinned later
        return min(wanted, len(os.sched_getaffinity(0)))
    return wanted


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "reinforce_dropout": __version__}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
