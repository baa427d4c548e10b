"""Gates whose decisions are shared by a block of instances and a group of units, section 4.

The rows of a mini-batch are cut into blocks of neighbouring instances, and the units of a layer
into groups of neighbouring units. The last block and the last group may be shorter. `shared` makes
such a gate from one that decides for a single state.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt


class Sharing(NamedTuple):
    """Who shares a decision.

    Attributes
    ----------
    instances : int
        Neighbouring instances in a block.
    units : int
        Neighbouring units in a group.
    state : str
        What a policy sees of a block, a key of `BLOCK_STATES`.
    """

    instances: int = 1
    units: int = 1
    state: str = "mean"


class BlockPolicy(NamedTuple):
    """A policy that decides from the state of a block.

    Attributes
    ----------
    policy : callable
        The policy of a single state.
    sharing : Sharing
    """

    policy: Any
    sharing: Sharing

    @property
    def theta(self):
        """What the policy learns."""
        return self.policy.theta

    def __call__(self, s):
        """Logits (n_blocks, n_groups) for the activations `s` (m_b, n_in)."""
        return self.policy(self._state(s))

    def kernel(self, s):
        """Return ``A -> J J^T A``, see `search.natural.kernel`."""
        return self.policy.kernel(self._state(s))

    def _state(self, s):
        return BLOCK_STATES[self.sharing.state](s, self.sharing.instances)


def shared(gate, sharing, n_units):
    """Return a gate for blocks and groups, of a layer of `n_units`.

    `gate` decides for a single state, with one decision for each of the `n_groups` groups.
    """
    return gate._replace(
        policy=BlockPolicy(gate.policy, sharing),
        expand=partial(expand, n_units=n_units, sharing=sharing),
        pool=partial(block_mean, instances=sharing.instances),
    )


def n_groups(n_units, units):
    """Return the number of groups of a layer, ``ceil(n_units / units)``, an int."""
    return -(-n_units // units)


def block_mean(v, instances):
    """Mean over the instances of each block, (m_b,) to (n_blocks,) or (m_b, n) to (n_blocks, n).

    ``n_blocks = ceil(m_b / instances)``. A short last block is divided by its own number of
    instances. `instances` may exceed m_b: then there is one block.
    """
    if instances == 1:
        return v
    members, inside = _members(v, instances)
    inside = pt.shape_padright(inside.astype(v.dtype), v.ndim - 1)
    return (inside * v[members]).sum(axis=1) / inside.sum(axis=1)


def block_max(s, instances):
    """Maximum over the instances of each block, (m_b, n) to (n_blocks, n)."""
    return s if instances == 1 else s[_members(s, instances)[0]].max(axis=1)


BLOCK_STATES = {"mean": block_mean, "max": block_max}
"""What a policy sees of a block's instances, by its name in settings."""


def expand_units(u, n_units, units):
    """Repeat the decisions for every unit of the group, to (n_blocks, n_units)."""
    return u if units == 1 else u[:, np.arange(n_units) // units]


def expand(u, s, n_units, sharing):
    """Repeat the decisions for every instance of the block and every unit of the group.

    Decisions u (n_blocks, n_groups) become masks (m_b, n_units). Only the number of rows of `s`
    (m_b, n_in) is used.
    """
    u = expand_units(u, n_units, sharing.units)
    return u if sharing.instances == 1 else u[pt.arange(s.shape[0]) // sharing.instances]


def _members(v, instances):
    """Return the rows of `v` in each block, and which of them are no copies.

    Both are (n_blocks, min(instances, m_b)). A short last block is filled up with copies of the
    last row. Copies do not change a maximum.
    """
    rows = pt.arange(v.shape[0])
    members = rows[::instances, None] + rows[:instances]
    last = v.shape[0] - 1
    return pt.minimum(members, last), members <= last
