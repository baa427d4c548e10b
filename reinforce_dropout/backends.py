"""Backends: what the symbolic graphs are compiled to.

========= ==================================== =================================================
backend   compiled by                          needs
========= ==================================== =================================================
``numba`` LLVM, with the Ops of `native`       nothing more
``jax``   XLA, for the CPU or an Nvidia GPU    the extra ``jax``, or ``cuda`` for the GPU
``c``     a C++ compiler, one module an Op     g++ or clang++ and Python's headers
``auto``  the first of these that works here
========= ==================================== =================================================

All draw the masks from the experiment's seed: ``numba`` and ``c`` the same ones, by NumPy's
generator; ``jax`` others, by its own generator on the device.

Under ``jax`` the parameters, the averages of baselines and the generator's state are arrays of the
device from the first step on, and every step replaces them there.  Copied at each step are the
mini-batch, to the device, and the statistics, back.  `Trainer.state` copies all back, once an epoch
or more seldom.  A mini-batch of another size compiles once more.
"""

import contextlib
import importlib
import io
import logging
import shlex
import shutil
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import pytensor
import scipy
from pytensor.compile.mode import get_mode
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.link.c.exceptions import CompileError
from pytensor.tensor.math import Sum

from reinforce_dropout.errors import BackendError

AUTO = ("numba", "jax", "c")
"""Fastest first."""
BACKENDS = ("auto", "numba", "c", "jax")


def resolve(backend):
    """Return the backend that is meant, a member of `AUTO`, after a look whether it can work here.

    Parameters
    ----------
    backend : str
        "auto" takes the first of `AUTO` that can work.

    Raises
    ------
    BackendError
        The backend is unknown, or something that it needs is missing.
    """
    if backend not in BACKENDS:
        raise BackendError(
            f"there is no backend {backend!r}; the backends are {', '.join(BACKENDS)}."
        )
    if backend != "auto":
        _CHECKS[backend]()
        return backend
    troubles = []
    for candidate in AUTO:
        try:
            return resolve(candidate)
        except BackendError as error:
            troubles.append(str(error).removesuffix("."))
    raise BackendError(f"no backend works here: {'; '.join(troubles)}.")


def mode(backend):
    """Return PyTensor's compilation mode for a backend.

    For "c" this also tells PyTensor of a BLAS, unless PyTensor has one: see `_use_a_blas`.

    Parameters
    ----------
    backend : str
        As for `resolve`.

    Returns
    -------
    pytensor.compile.mode.Mode
        For `function`.

    Raises
    ------
    BackendError
        As for `resolve`.
    """
    backend = resolve(backend)
    if backend == "numba":
        from reinforce_dropout import native  # not above: the other backends work without Numba

        return native.mode()
    if backend == "jax":
        return get_mode("JAX").register((dfs_rewriter(sum_in_own_dtype), 60))
    _use_a_blas()
    # Or else PyTensor 3.0 makes the softmax of the nll an Op that it compiles with Numba even so.
    return get_mode("CVM").excluding("symbolic_op_recognition")


def function(inputs, outputs, **options):
    """Compile a graph: `pytensor.function` with the trouble a backend makes in one sentence.

    Parameters
    ----------
    inputs, outputs, **options
        As for `pytensor.function`.

    Raises
    ------
    BackendError
        The C++ compiler failed.
    """
    try:
        # PyTensor prints where it left the source that it could not compile.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Both from JAX mode: that it copies generators, which `generator_state` knows, and that
            # it leaves out run-time checks of shapes.
            warnings.filterwarnings("ignore", "The RandomType SharedVariables", UserWarning)
            warnings.filterwarnings("ignore", "Skipping Assert", UserWarning)
            return pytensor.function(inputs, outputs, **options)
    except CompileError as error:
        # The first line is PyTensor's, the second the command, the last what follows from the rest.
        lines = str(error).splitlines()[2:]
        reason = next((x for x in lines if "error:" in x or "cannot find" in x), lines[-1])
        raise BackendError(
            f"the C++ compiler failed ({reason.strip()}): check PyTensor's settings cxx and "
            "blas__ldflags if you set them, or leave --backend out."
        ) from error


def generator_state(function, rng):
    """Return the state of a random generator as a compiled function left it.

    Under JAX every function compiled with `rng` holds a copy of its state and never updates `rng`:
    two functions of one generator draw the same numbers, and ``rng.set_value`` changes neither.  On
    the other backends the functions advance `rng` itself and continue one stream.

    Parameters
    ----------
    function : pytensor.compile.function.types.Function
    rng : shared random generator

    Returns
    -------
    dict
        Of what JSON can hold, for `set_generator_state`.
    """
    held = _storage(function, rng)[0]
    if isinstance(held, dict):
        # The rest of the dict is what became of NumPy's state, and never changes.
        return {"jax_state": np.asarray(held["jax_state"]).tolist()}
    return rng.get_value(borrow=True).bit_generator.state


def set_generator_state(function, rng, state):
    """Put back what `generator_state` returned for the same graph on the same backend."""
    storage = _storage(function, rng)
    if isinstance(storage[0], dict):
        storage[0] = storage[0] | {"jax_state": np.asarray(state["jax_state"], "uint32")}
    else:
        rng.get_value(borrow=True).bit_generator.state = state


def _storage(function, shared):
    """Return the list of one element where a function holds a shared variable's value."""
    containers = zip(function.maker.inputs, function.input_storage, strict=True)
    # A function that does not use the variable (no policies, no masks) does not change it either.
    return next((c for i, c in containers if i.variable is shared), shared.container).storage


@node_rewriter([Sum])
def sum_in_own_dtype(fgraph, node):
    """Let a sum be accumulated in the dtype of its result.

    PyTensor accumulates float32 in float64, and its JAX linker forgets to go back to float32: the
    parameters would be float64 after one step, and every further step several times slower.
    """
    op = node.op
    if op.acc_dtype == op.dtype:
        return None
    return [Sum(axis=op.axis, dtype=op.dtype, acc_dtype=op.dtype)(*node.inputs)]


def _check_package(name, mend):
    try:
        importlib.import_module(name)
    except Exception as error:  # a package that does not suit another one raises anything
        reason = " ".join(str(error).split()).rstrip(".")
        raise BackendError(f"the backend {name} does not work here ({reason}): {mend}.") from error


def _check_numba():
    _check_package("numba", "reinstall it with pip install --force-reinstall numba")


def _check_jax():
    _check_package(
        "jax", "install it with pip install 'reinforce-dropout[jax]', or leave --backend out"
    )


def _check_compiler():
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


_CHECKS = {"numba": _check_numba, "jax": _check_jax, "c": _check_compiler}

_ROUTINES = [f"{t}{name}_" for t in "sd" for name in "gemm gemv ger dot axpy scal copy".split()]


def _use_a_blas():
    """Have PyTensor's C code call a BLAS.

    The first of: the user's own setting ``blas__ldflags`` (see PyTensor's manual on PYTENSOR_FLAGS
    and .pytensorrc), what PyTensor finds (conda's, Apple's, the system's), and the OpenBLAS
    inside SciPy's wheel, which every pip install has.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is none: it may not matter, see below
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
    # SciPy's build has a prefix to every name, so as not to meet another BLAS in the process.
    flags = [
        f"-L{folder}",
        f"-l{library.stem.removeprefix('lib')}",
        f"-Wl,-rpath,{folder}",
        *(f"-D{name}=scipy_{name}" for name in _ROUTINES),
    ]
    pytensor.config.blas__ldflags = shlex.join(flags)
