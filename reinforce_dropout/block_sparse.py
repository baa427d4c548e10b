"""A forward pass in which a dropped unit costs nothing: its weights are never read."""

import logging

import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.link.jax import JAXLinker

from reinforce_dropout import bernoulli, blocks
from reinforce_dropout.alignment import aligned
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.network import ForwardPass, expected
from reinforce_dropout.packed import BlockLogits, PackedProduct, PackInUse, Unpack
from reinforce_dropout.panels import in_panels

EXECUTIONS = ("dense", "block-sparse")
"""How a forward pass can be computed: with masks as factors, or leaving out what is dropped."""


def forward_by(execution, network, mode):
    """Return the forward pass of a network by the chosen execution.

    Block-sparse are the passes with masks of zeros and ones.  The expected rule drops nothing, so
    that its pass is dense in any case.  JAX is not given the Ops of `packed`, as it could not
    compile their shapes, which depend on the masks: there every pass is dense, and a warning in the
    log says so.

    Parameters
    ----------
    execution : str
        One of `EXECUTIONS`.
    network : MaskedNetwork
        If block-sparse, its weights are copied: later changes of them are not seen.
    mode : pytensor.compile.mode.Mode or str
        In which the graph will be compiled.

    Returns
    -------
    callable
        ``forward(x, rng, mask) -> ForwardPass``

    Raises
    ------
    ExperimentError
        The execution is unknown, or block-sparse for a network without policies.
    """
    if execution not in EXECUTIONS:
        raise ExperimentError(
            f"execution must be one of {', '.join(EXECUTIONS)}, not {execution!r}."
        )
    if execution == "dense":
        return network.forward
    if not network.policies:
        raise ExperimentError(
            "the network has no policies, so nothing is dropped that a block-sparse execution "
            "could skip: set execution to dense."
        )
    if isinstance(get_mode(mode).linker, JAXLinker):
        warn_that_jax_is_dense()
        return network.forward
    sparse = BlockSparseNetwork(network)

    def forward(x, rng=None, mask=bernoulli.sample):
        return (network if mask is expected else sparse).forward(x, rng, mask)

    return forward


def warn_that_jax_is_dense():
    """Tell the user that the execution is not the one that was asked for."""
    logging.getLogger(__name__).warning(
        "The backend jax has no block-sparse execution: the dense one is taken instead."
    )


def transposed(network):
    """Copy the weight matrices of a network, transposed: those of a unit are neighbours.

    Parameters
    ----------
    network : MaskedNetwork

    Returns
    -------
    list of shared (n_units, n_in)
        Of the hidden layers, then of the output.
    """
    return [
        pytensor.shared(aligned(W.get_value(borrow=True).T), name=f"{W.name}t", borrow=True)
        for W in network.weights
    ]


class BlockSparseNetwork:
    """A masked network laid out for inference by blocks.

    The same function of the same parameters and draws as `network.MaskedNetwork.forward`, for masks
    of zeros and ones.  The weights are copied, see `transposed` and `panels.in_panels`: a change of
    the network's parameters afterwards is not seen.

    Parameters
    ----------
    network : MaskedNetwork
        With policies.

    Attributes
    ----------
    network : MaskedNetwork
    Wt : list of shared (n_units, n_in)
        Of the hidden layers, then of the output.
    Z : list of shared (n_panels, n_in, width)
        Of the policies, see `panels.in_panels`.
    """

    def __init__(self, network):
        self.network = network
        self.Wt = transposed(network)
        self.Z = [
            pytensor.shared(in_panels(p.Z.get_value(borrow=True)), name=p.Z.name, borrow=True)
            for p in network.policies
        ]

    def forward(self, x, rng=None, mask=bernoulli.sample):
        """Propagate `x` block by block through the units that take part.

        Parameters
        ----------
        x : tensor (m_b, n_in)
        rng : random generator variable, optional
        mask : callable
            As for `MaskedNetwork.forward`, but with zeros and ones only.

        Returns
        -------
        ForwardPass
            ``S`` holds `x` and then packed activations, see `packed`.
        """
        network, size = self.network, self.network.instances_per_block
        S, Z, decisions, U = [], [], [], []
        packed, active = PackInUse(size)(x)
        for i, (layer, Wt, n_units) in enumerate(
            zip(network.layers, self.Wt[:-1], network.n_units, strict=True)
        ):
            S.append(packed if S else x)
            z = self._logits(i, packed, active, x)
            u, rng = mask(z, rng)
            above = pt.neq(blocks.expand_units(u, n_units, network.units_per_block), 0)
            packed = layer.activation(PackedProduct(size)(packed, active, Wt, layer.b, above))
            active = above
            Z.append(z)
            decisions.append(u)
            U.append(blocks.expand(u, x, n_units, size, network.units_per_block))
        everything = pt.ones((active.shape[0], self.Wt[-1].shape[0]), dtype="bool")
        logits = PackedProduct(size)(packed, active, self.Wt[-1], network.output.b, everything)
        logits = Unpack(size)(logits, everything, x.shape[0])
        return ForwardPass(S, Z, decisions, U, logits, rng)

    def _logits(self, i, packed, active, x):
        """Logits of policy i for the state of each block, `blocks.block_state`."""
        policy, size = self.network.policies[i], self.network.instances_per_block
        if self.network.block_state == "mean":
            return BlockLogits(size)(packed, active, x.shape[0], self.Z[i], policy.o)
        s = Unpack(size)(packed, active, x.shape[0])
        return policy.logits(blocks.block_state(s, size, self.network.block_state))
