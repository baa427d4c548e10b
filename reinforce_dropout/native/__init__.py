"""A faster compilation mode: the same graphs, better machine code.

If a graph is compiled with :func:`mode`, :mod:`.rewrites` and :mod:`.column_rewrites` replace parts
of it by Ops. The package has one folder for each level:

- :mod:`.ops`: Ops and their translations to Numba, also of the Ops in `reinforce_dropout.blocks`;
- :mod:`.kernels`: functions of arrays that the translations call;
- :mod:`.llvm`: pieces of kernels in LLVM's own instructions.

Importing this package leaves PyTensor's own modes as they are.
"""

from pytensor.compile.mode import Mode, get_mode

from reinforce_dropout.native import column_rewrites  # noqa: F401 - register rewrites
from reinforce_dropout.native.memory import keep_freed
from reinforce_dropout.native.ops import (  # noqa: F401 - register translations
    lists,
    packed,
    submatrix,
)
from reinforce_dropout.native.ops.uniforms import AdaptiveLinker, NativeLinker
from reinforce_dropout.native.rewrites import TAG

__all__ = ["mode"]


def mode(name="NUMBA", adaptive=False):
    """Return PyTensor's mode `name`, with the native Ops if its linker is Numba's.

    Parameters
    ----------
    name : str
        A mode of PyTensor, in upper or lower case.
    adaptive : bool
        Whether the number of threads follows the load of the machine, see `adaptive.Adaptive`. It
        changes no bit. Only for functions whose first argument is an array.

    Returns
    -------
    pytensor.compile.mode.Mode
    """
    plain = get_mode(name.upper())
    if name.upper() != "NUMBA":
        return plain
    keep_freed()
    linker = AdaptiveLinker() if adaptive else NativeLinker()
    return Mode(linker, plain.provided_optimizer).including(TAG)
