"""The backend c: C++ that PyTensor compiles, one module an Op."""

import logging
import shlex
import shutil
import sysconfig
import warnings
from pathlib import Path

import pytensor
import scipy
from pytensor.compile.mode import get_mode

from reinforce_dropout.errors import BackendError


def check():
    """Raise BackendError if the backend cannot work here."""
    if not shutil.which(pytensor.config.cxx.strip('"')):
        raise BackendError(
            "the backend c needs a C++ compiler: install g++ (macOS: clang++), or leave "
            "--backend out."
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise BackendError(
            "the backend c needs Python's headers: install your system's package for developing "
            "with Python, such as python3-dev, or leave --backend out."
        )


def mode(adaptive=False):
    """Return the compilation mode, after telling PyTensor of a BLAS."""
    _use_a_blas()
    # Otherwise PyTensor 3.0 turns the softmax into an Op that it compiles with Numba even here.
    return get_mode("CVM").excluding("symbolic_op_recognition")


_ROUTINES = [f"{t}{name}_" for t in "sd" for name in "gemm gemv ger dot axpy scal copy".split()]


def _use_a_blas():
    """Have PyTensor's C code call a BLAS.

    The user's own setting ``blas__ldflags`` comes first (see PyTensor's manual on PYTENSOR_FLAGS).
    Then comes what PyTensor finds (conda's, Apple's, the system's). The last is the OpenBLAS inside
    SciPy's wheel.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTensor warns if it finds none
        if pytensor.config.blas__ldflags:
            return
    folder = Path(scipy.__file__).parents[1] / "scipy.libs"
    library = next(folder.glob("libscipy_openblas-*.so"), None)
    if library is None:
        logging.getLogger(__name__).warning(
            "PyTensor found no BLAS, so that the backend c is several times slower: install "
            "OpenBLAS and name it in PyTensor's setting blas__ldflags, or leave --backend out."
        )
        return
    # SciPy's names have a prefix, so they do not clash with another BLAS in the process.
    flags = [
        f"-L{folder}",
        f"-l{library.stem.removeprefix('lib')}",
        f"-Wl,-rpath,{folder}",
        *(f"-D{name}=scipy_{name}" for name in _ROUTINES),
    ]
    pytensor.config.blas__ldflags = shlex.join(flags)
