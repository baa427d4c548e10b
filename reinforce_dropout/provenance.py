"""Where a result comes from: the command, code, versions and machine that made it."""

import importlib.metadata
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
_DISTRIBUTIONS = ("pytensor", "numpy", "scipy", "numba", "jax", "jax-cuda12-plugin", "h5py")


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
        name to version; a package that is not installed is left out).
    """
    program, *arguments = command
    return {
        "command": _as_utf8(shlex.join([os.path.basename(program), *arguments])),
        "git_commit": git_commit(_PACKAGE),
        "host_cpu": _host_cpu(),
        "n_threads": _n_threads(),
        "versions": _versions(),
    }


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
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


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
