"""Block dropout, section 4: one decision for a block of instances and a group of units.

The rows of a mini-batch are cut into blocks of B neighbouring instances, the units of a layer into
groups of G neighbouring units; the last block and the last group may be shorter. With B = G = 1 a
decision is made for every unit of every instance, and every function here returns its argument.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.link.jax import JAXLinker
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.shape import Shape, Shape_i

BLOCK_STATES = ("mean", "max")
"""What `block_state` can make of the states of a block's instances."""


def n_groups(n_units, units_per_block):
    """Return the number of groups of a layer, ``ceil(n_units / units_per_block)``, an int."""
    return -(-n_units // units_per_block)


def row_numbers(x):
    """Return the numbers of the rows of `x`, 0 to m_b - 1, int64 (m_b,), in a form for JAX.

    JAX has to know the end, which for PyTensor only the Op `Shape_i` says, and counts in the dtype
    of the ends: PyTensor would write 0 and 1 as int8.
    """
    return pt.arange(np.int64(0), Shape_i(0)(x), np.int64(1))


def block_mean(v, instances_per_block):
    """Mean over the instances of each block, over the last one's own number of them.

    Parameters
    ----------
    v : tensor (m_b,) or (m_b, n)
    instances_per_block : int
        May exceed m_b: then there is one block.

    Returns
    -------
    tensor (n_blocks,) or (n_blocks, n)
        In the dtype of `v`; ``n_blocks = ceil(m_b / instances_per_block)``.
    """
    if instances_per_block == 1:
        return v
    members, inside = _members(v, instances_per_block)
    inside = pt.shape_padright(inside.astype(v.dtype), v.ndim - 1)
    return (inside * v[members]).sum(axis=1) / inside.sum(axis=1)


def block_state(s, instances_per_block, how="mean"):
    """State of each block, from which its policy decides.

    Parameters
    ----------
    s : tensor (m_b, n_in)
        Activations of the layer below.
    instances_per_block : int or None
        May exceed m_b: then there is one block, and so there is, by a simpler graph, for None.
    how : {"mean", "max"}
        Over the block's own instances, an entry of `BLOCK_STATES`.

    Returns
    -------
    tensor (n_blocks, n_in)
    """
    if instances_per_block == 1:
        return s
    if instances_per_block is None:
        over_rows = pt.mean if how == "mean" else pt.max
        return over_rows(s, axis=0, keepdims=True)
    if how == "mean":
        return block_mean(s, instances_per_block)
    return s[_members(s, instances_per_block)[0]].max(axis=1)


def expand_units(u, n_units, units_per_block):
    """Repeat the decisions for every unit of the group.

    Parameters
    ----------
    u : tensor (n_blocks, n_groups)
    n_units, units_per_block : int

    Returns
    -------
    tensor (n_blocks, n_units)
    """
    if units_per_block == 1:
        return u
    return u[:, np.arange(n_units) // units_per_block]


def expand(u, x, n_units, instances_per_block, units_per_block):
    """Repeat the decisions for every instance of the block and every unit of the group.

    Parameters
    ----------
    u : tensor (n_blocks, n_groups)
    x : tensor (m_b, n_in)
        The mini-batch, of which only the number of rows counts.
    n_units : int
    instances_per_block, units_per_block : int

    Returns
    -------
    tensor (m_b, n_units)
        Masks.
    """
    u = expand_units(u, n_units, units_per_block)
    return u if instances_per_block == 1 else u[row_numbers(x) // instances_per_block]


def active_units(u, x, n_units, instances_per_block, units_per_block):
    """Active fractions of a layer, summed over the instances: from the decisions, not the masks.

    Parameters
    ----------
    u, x, n_units, instances_per_block, units_per_block
        As for `expand`.

    Returns
    -------
    float64 scalar
        ``m_b`` times the mean of the mask that `expand` makes.
    """
    fractions = expand_units(u, n_units, units_per_block).mean(axis=1)
    if instances_per_block > 1:
        firsts = row_numbers(x)[::instances_per_block]
        fractions = fractions * pt.minimum(instances_per_block, Shape_i(0)(x) - firsts)
    return fractions.sum(dtype="float64")


def compilation_mode(mode, instances_per_block):
    """Return the mode in which graphs with blocks of instances compile.

    That of `backends.mode`, but for JAX, which must know every shape while it traces and does:
    PyTensor's own inference would put in its place a computed number of blocks, which JAX refuses.

    Parameters
    ----------
    mode : pytensor.compile.mode.Mode or str
    instances_per_block : int

    Returns
    -------
    pytensor.compile.mode.Mode or str
    """
    if instances_per_block > 1 and isinstance(get_mode(mode).linker, JAXLinker):
        # The last, which reorders chains of products, brings back the inference it needs (3.3.7).
        mode = get_mode(mode).excluding(
            "ShapeOpt", "local_replace_AdvancedSubtensor", "reassociate_matmul_chain"
        )
        return mode.register((dfs_rewriter(_length_of_vector), _BEFORE_FUSION))
    return mode


_BEFORE_FUSION = 48.9
"""Position among the rewrites, as fusion follows at 49: it would hide the scalars from JAX."""


@node_rewriter([DimShuffle])
def _length_of_vector(fgraph, node):
    """Write the only entry of a vector's shape as JAX knows it, not as an array from a tuple."""
    shape = node.inputs[0]
    if shape.owner and isinstance(shape.owner.op, Shape) and shape.owner.inputs[0].ndim == 1:
        length = Shape_i(0)(shape.owner.inputs[0])
        return [pt.shape_padleft(length, node.outputs[0].ndim)]
    return None


def _members(x, instances_per_block):
    """Return the rows of `x` in each block, and which of them there are.

    Returns
    -------
    members : int64 tensor (n_blocks, min(instances_per_block, m_b))
        What the last block lacks is the last row again, which changes no maximum.
    inside : bool tensor, of the same shape
        False for those repetitions.
    """
    rows = row_numbers(x)
    members = rows[::instances_per_block, None] + rows[:instances_per_block]
    last = Shape_i(0)(x) - 1
    return pt.minimum(members, last), members <= last
