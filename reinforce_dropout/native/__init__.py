"""A faster compilation mode: the same graphs, better machine code.

Ops (:mod:`.products`) with Numba kernels (:mod:`.forward_products`, :mod:`.transposed_products`,
:mod:`.rank_updates`) replace the matrix products of a training step, and rewrites
(:mod:`.rewrites`) put them there when the graph is compiled with :func:`mode`. :mod:`.uniforms`
draws the masks; :mod:`.packed`, :mod:`.packed_product`, :mod:`.block_logits` and :mod:`.submatrix`
compile the Ops of block dropout.  Importing this package leaves PyTensor's own modes as they are.
"""

from pytensor.compile.mode import Mode, get_mode

from reinforce_dropout.native import (  # noqa: F401 - register their kernels
    block_logits,
    packed,
    packed_product,
    submatrix,
)
from reinforce_dropout.native.rewrites import TAG
from reinforce_dropout.native.uniforms import NativeLinker

__all__ = ["mode"]


def mode(name="NUMBA"):
    """Return PyTensor's mode `name`, with the native Ops if its linker is Numba's.

    Parameters
    ----------
    name : str
        A name PyTensor knows, in any case: ``"numba"``, ``"c"``, ``"jax"``, ...

    Returns
    -------
    pytensor.compile.mode.Mode
        To be passed to ``pytensor.function`` as ``mode``.
    """
    plain = get_mode(name.upper())
    if name.upper() != "NUMBA":
        return plain
    return Mode(NativeLinker(), plain.provided_optimizer).including(TAG)
