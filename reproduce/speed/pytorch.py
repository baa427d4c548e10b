"""PyTorch: eager, with autograd and the fused optimiser, and a whole step compiled."""

from itertools import pairwise

import torch
from torch.nn import functional

from speed import L2, n_layers


def draw(sigma):
    """Sample masks; no gradient passes. Three times as fast as ``torch.bernoulli``."""
    return (torch.rand_like(sigma) < sigma).float()


class Network(torch.nn.Module):
    """The masked network.

    Parameters
    ----------
    widths : sequence of int
        ``(n_in, n_units_1, ..., n_units_L, n_classes)``
    policy : bool
    """

    def __init__(self, widths, policy):
        super().__init__()
        hidden = list(pairwise(widths[:-1]))
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in hidden)
        self.policies = torch.nn.ModuleList(torch.nn.Linear(*p) for p in hidden if policy)
        self.out = torch.nn.Linear(*widths[-2:])

    def named_layers(self):
        """Return the layers by their paper's names: ``{("W_1", "b_1"): layer, ...}``."""
        layers = {(f"W_{i}", f"b_{i}"): layer for i, layer in enumerate(self.hidden, start=1)}
        layers |= {(f"Z_{i}", f"o_{i}"): layer for i, layer in enumerate(self.policies, start=1)}
        return layers | {("W_out", "b_out"): self.out}

    def forward(self, x, y):
        """Return the loss whose gradient is that of network and policies, and the statistics."""
        s, log_pi, rates, entropies = x, 0.0, [], []
        for i, layer in enumerate(self.hidden):
            h = torch.tanh(layer(s))
            if self.policies:
                # A policy learns from its own log pi alone: nothing flows to the layers below.
                z = self.policies[i](s.detach())
                sigma, softplus = torch.sigmoid(z), functional.softplus(z)
                u = draw(sigma)
                log_pi = log_pi + (u * z - softplus).sum(1)
                rates.append(u.mean())
                entropies.append((softplus - sigma * z).detach().mean())
                h = h * u
            s = h
        nll = functional.cross_entropy(self.out(s), y, reduction="none")
        loss, c = nll.sum(), nll.detach()
        if self.policies:
            loss = loss + ((c - c.mean()) * log_pi).mean()
        return loss, torch.stack([c.mean(), *rates, *entropies])


class Eager:
    """Eager PyTorch; see the package `speed` for the arguments."""

    def __init__(self, parameters, x, y, learning_rate):
        biases = (parameters[f"b_{i}"] for i in range(1, n_layers(parameters) + 1))
        widths = [x.shape[2], *map(len, biases), len(parameters["b_out"])]
        self.network = Network(widths, "Z_1" in parameters)
        for (weight, bias), layer in self.network.named_layers().items():
            layer.weight.data.copy_(torch.from_numpy(parameters[weight].T))
            layer.bias.data.copy_(torch.from_numpy(parameters[bias]))
        decaying = [layer.weight for layer in [*self.network.hidden, self.network.out]]
        rest = [p for p in self.network.parameters() if all(p is not w for w in decaying)]
        # Weight decay is the gradient of the L2 penalty, without building the penalty's graph.
        groups = [{"params": decaying, "weight_decay": 2 * L2}, {"params": rest}]
        self.optimizer = torch.optim.SGD(groups, lr=learning_rate, fused=True)
        self.batches = list(zip(torch.from_numpy(x), torch.from_numpy(y).long(), strict=True))

    def step(self, x, y):
        """Make one step and return its statistics."""
        self.optimizer.zero_grad()
        loss, statistics = self.network(x, y)
        loss.backward()
        self.optimizer.step()
        return statistics

    def turn(self):
        """Make one step for each mini-batch."""
        return torch.stack([self.step(x, y) for x, y in self.batches]).numpy()

    def parameters(self):
        """Return the parameters by name."""
        found = {}
        for (weight, bias), layer in self.network.named_layers().items():
            found[weight] = layer.weight.detach().numpy().T.copy()
            found[bias] = layer.bias.detach().numpy().copy()
        return found


class Compiled(Eager):
    """One graph of ``torch.compile`` for forward pass, gradient and in-place update.

    Faster than compiling the network alone and leaving the update to the optimiser.
    """

    def __init__(self, parameters, x, y, learning_rate):
        super().__init__(parameters, x, y, learning_rate)
        torch.compiler.reset()  # or earlier networks' sizes would make these ones dynamic
        values = {name: p.detach() for name, p in self.network.named_parameters()}
        decaying = {f"hidden.{i}.weight" for i in range(len(self.network.hidden))} | {"out.weight"}

        @torch.compile(fullgraph=True)
        def step(values, x, y):
            def loss(values):
                return torch.func.functional_call(self.network, values, (x, y))

            gradients, statistics = torch.func.grad(loss, has_aux=True)(values)
            for name, value in values.items():
                decay = 2 * L2 * value if name in decaying else 0.0
                value.sub_(gradients[name] + decay, alpha=learning_rate)
            return statistics

        self.step = lambda x, y: step(values, x, y)
