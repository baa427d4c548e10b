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

_PACKAGE = Path(__file__).resolve().parents[1]
_DISTRIBUTIONS = (
    "pytensor", "numpy", "scipy", "numba", "llvmlite", "jax", "jax-cuda12-plugin", "h5py",
)  # fmt: skip
_VARIABLES = ("PYTENSOR_FLAGS", "NUMBA_", "OPENBLAS_")
"""Prefixes of the environment variables that decide what is compiled."""
_DECIDES_BITS = (
    "git_commit", "host_cpu", "versions", "processor", "cpu_features", "vector_bytes",
    "environment",
)  # fmt: skip
"""Facts on which the rounding of a run can depend."""


def collect(command: Sequence[str]) -> dict:
    """Describe the run that `command` started, as attributes of its record.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments, as in ``sys.argv``; at least the program.

    Returns
    -------
    dict
        - ``command``: to be pasted into a shell, the program without its folder;
        - ``git_commit``: see `git_commit`;
        - ``host_cpu``; ``processor``: family, model and stepping, if the system tells them;
        - ``n_threads``: threads that BLAS uses, an int;
        - ``versions``: of the installed packages, a dict;
        - ``environment``: the variables that decide what is compiled;
        - if Numba works, ``cpu_features`` (LLVM's name of the processor and its features),
          ``vector_bytes`` of our kernels (int) and Numba's ``threading_layer``.
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
    """Note that a run goes on, and warn if its numbers may not be those of an unbroken run.

    Parameters
    ----------
    attributes : dict
        Of the record: they keep the facts of the beginning.
    facts : dict
        As `collect` returns them now.

    Returns
    -------
    dict
        ``resumed``: a list with an entry for each resumption. It has the ``time`` (ISO 8601 in UTC)
        and the facts that differ from the beginning. Facts that an older record lacks count as
        equal.
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
    """Return the full hash of the commit that the package in `folder` belongs to.

    It ends in ``-dirty`` if tracked files of the checkout differ from the commit. It is empty
    outside a checkout, before its first commit, or without git.
    """
    try:
        # The package may be installed below another checkout, as in a virtual environment. Only a
        # tracked file proves that the commit is ours.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--abbrev=64", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    # A git hook exports variables such as GIT_DIR, which would point away from `folder`.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # Without optional locks, a starting run does not disturb a commit that is being made.
    finished = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return finished.stdout.strip()


def _as_utf8(text: str) -> str:
    # Arguments that are not UTF-8 have lone surrogates in Python, which no file can hold.
    return os.fsencode(text).decode("utf-8", "replace")


def _host_cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str:
    """Return an entry of Linux's description of the first processor, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")


def _processor() -> dict:
    """Describe the processor that our kernels are compiled for; the rounding depends on it."""
    numbers = ("cpu family", "model", "stepping")
    known = [f"{name} {_cpuinfo(name)}" for name in numbers if _cpuinfo(name)]
    found = {"processor": ", ".join([platform.machine(), *known])}
    try:
        import llvmlite.binding as llvm
        import numba

        from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES

        numba.get_num_threads()  # makes Numba choose its threading layer
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
    """Return the variables that decide what is compiled, without folders and threads."""
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
    if hasattr(os, "sched_getaffinity"):  # a pool does not shrink if the process is pinned later
        return min(wanted, len(os.sched_getaffinity(0)))
    return wanted


def _versions() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "reinforce_dropout": importlib.metadata.version("reinforce-dropout"),
    }
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
