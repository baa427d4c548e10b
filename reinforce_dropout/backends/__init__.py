"""Backends: what the symbolic graphs are compiled to.

========== ==================================== =================================================
backend    compiled by                          needs
========== ==================================== =================================================
``numba``  LLVM, with the Ops of `native`       nothing more
``jax``    XLA, for the CPU or an Nvidia GPU    the extra ``jax``, or ``cuda`` for the GPU
``c``      a C++ compiler, one module an Op     g++ or clang++ and Python's headers
``python`` nothing: for tiny problems           nothing more
``auto``   the first of numba, jax and c that works here
========== ==================================== =================================================

All draw the masks from the experiment's seed. ``jax`` draws by its own generator on the device.
The others draw the same masks, by NumPy's generator.

Under ``jax`` the training examples and all that a step changes are on the device. An epoch is a few
compiled scans over mini-batches (`scan`). `Learner.state` copies everything back, after each epoch.
A mini-batch of another size compiles once more.
"""

import contextlib
import io
import logging
import warnings

import pytensor
from pytensor.link.c.exceptions import CompileError
from pytensor.link.jax.linker import JAXLinker

from reinforce_dropout.backends import c, jax, numba, python, scan
from reinforce_dropout.backends.generators import generator_state, set_generator_state
from reinforce_dropout.errors import BackendError

__all__ = [
    "AUTO", "BACKENDS", "execution", "function", "generator_state", "mode", "resolve",
    "set_generator_state", "steps",
]  # fmt: skip

_MODULES = {"numba": numba, "jax": jax, "c": c, "python": python}
AUTO = ("numba", "jax", "c")
"""Fastest first."""
BACKENDS = ("auto", "numba", "c", "jax", "python")


def resolve(backend):
    """Return a backend that can work here, never "auto".

    Parameters
    ----------
    backend : str
        "auto" is the first of `AUTO` that can work.

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
        _MODULES[backend].check()
        return backend
    troubles = []
    for candidate in AUTO:
        try:
            return resolve(candidate)
        except BackendError as error:
            troubles.append(str(error).removesuffix("."))
    raise BackendError(f"no backend works here: {'; '.join(troubles)}.")


def mode(backend, adaptive=False):
    """Return PyTensor's compilation mode for a backend.

    If `adaptive`, the number of threads follows the load of the machine, see `native.adaptive`.
    This is for "numba" only. On the other backends the bits of the results depend on the number.
    """
    return _MODULES[resolve(backend)].mode(adaptive)


def execution(backend, wanted):
    """Return the wanted execution, or "dense" with a warning if the backend lacks the other."""
    if wanted != "block-sparse" or resolve(backend) != "jax":
        return wanted
    logging.getLogger(__name__).warning(
        "The backend jax has no block-sparse execution: the dense one is taken instead."
    )
    return "dense"


def function(inputs, outputs, **options):
    """Compile as `pytensor.function` does; if the C++ compiler fails, raise BackendError."""
    try:
        # If PyTensor cannot compile a source, it prints the path of that file.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Two warnings of the JAX mode: it copies generators (see `generators`), and it leaves
            # out run-time checks of shapes.
            warnings.filterwarnings("ignore", "The RandomType SharedVariables", UserWarning)
            warnings.filterwarnings("ignore", "Skipping Assert", UserWarning)
            return pytensor.function(inputs, outputs, **options)
    except CompileError as error:
        # The first line is PyTensor's, and the second is the command.
        lines = str(error).splitlines()[2:]
        reason = next((x for x in lines if "error:" in x or "cannot find" in x), lines[-1])
        raise BackendError(
            f"the C++ compiler failed ({reason.strip()}): check PyTensor's settings cxx and "
            "blas__ldflags if you set them, or leave --backend out."
        ) from error


def steps(function, step):
    """Return a loop over the mini-batches of an epoch.

    Parameters
    ----------
    function : pytensor.compile.function.types.Function
        ``function(x, y) -> statistics``, with updates.
    step : callable
        ``step(images, labels)``: calls it, and does what else belongs to a step.

    Returns
    -------
    callable
        ``steps(images, labels, batch_size)``: a generator of the statistics of each mini-batch. The
        last mini-batch may be smaller.
    """
    if isinstance(function.maker.linker, JAXLinker):
        return scan.scanned(function)
    return one_by_one(step)


def one_by_one(step):
    """Return the loop that calls ``step(images, labels)`` for each mini-batch, see `steps`."""

    def steps(images, labels, batch_size):
        for start in range(0, len(labels), batch_size):
            batch = slice(start, start + batch_size)
            yield step(images[batch], labels[batch])

    return steps
