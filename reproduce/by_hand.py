"""The paper on one screen: MNIST, the network, its policy, both updates, and the results.

`python reproduce/by_hand.py 5` trains policy-500 for 5 epochs.
"""

import sys
from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends, baselines, costs, gates, network, reinforce, returns
from reinforce_dropout.algorithm import backpropagation_updates, reinforce_updates, training_step
from reinforce_dropout.running import datasets
from reinforce_dropout.updates import sgd

N_UNITS, BATCH_SIZE, RATE, L2, LAMBDA, Q = 500, 20, 0.01, 0.001, 0.0, 0.1  # section 4; Q is open
N_EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 5

mnist = datasets.load()
images, labels = mnist.train.images, mnist.train.labels
assert mnist.image_shape == (28, 28) and mnist.n_classes == 10
assert len(mnist.train) + len(mnist.valid) == 60_000 and len(mnist.test) == 10_000

# The network 784-500-10, and a policy that looks at the image: sigma = sigm(s Z + o), eq. (1).
rng = np.random.default_rng(1)
net = network.multilayer_perceptron(rng, (784, N_UNITS, 10), pt.tanh)
net = net._replace(gates=[gates.sigmoid_bernoulli(rng, 784, N_UNITS, "1", initial_rate=0.12)])


def learn(net, passed, nll):
    """Section 3.3: both updates of a mini-batch, from one pass with one set of masks."""
    descend = partial(sgd, learning_rate=RATE)
    return backpropagation_updates(
        net, nll, reduce=pt.sum, l2=L2, descend=descend
    ) | reinforce_updates(
        passed.stages, nll,
        cost=costs.kl_to_rate(Q), lam=LAMBDA,  # C = nll + lambda KL, eqs. (5) and (6)
        returns=returns.literal, baseline=baselines.batch_mean,  # (C - b), eq. (2)
        estimate=reinforce.policy_gradient,  # (1/N) R{log pi}, eq. (4)
        descend=descend,
    )  # fmt: skip


x, y = pt.fmatrix("x"), pt.ivector("y")
masks = pytensor.shared(np.random.default_rng(2))
step = training_step(net, x, y, masks, learn)
numba = backends.mode("numba")
(active,) = step.statistics["active_fraction"]
train = backends.function(
    [x, y], [step.statistics["train_nll"], active], updates=list(step.updates.items()), mode=numba
)
passes = {name: network.forward(net, x, masks, rule) for name, rule in network.RULES.items()}
wrong = [pt.neq(pt.argmax(p.logits, axis=1), y).mean() for p in passes.values()]
errors = backends.function([x, y], wrong, updates=[(masks, passes["sampled"].rng)], mode=numba)
at_first = backends.function([x], passes["expected"].stages[0].U.mean(), mode=numba)

fraction = float(at_first(images[:1000]))
print(f"before training {fraction:.1%} of the units are active")
assert 0.10 < fraction < 0.15

for epoch in range(1, N_EPOCHS + 1):
    batches = range(0, len(labels), BATCH_SIZE)
    statistics = [train(images[i : i + BATCH_SIZE], labels[i : i + BATCH_SIZE]) for i in batches]
    nll, fraction = np.mean(statistics, axis=0)
    sampled, expected, thresholded = errors(mnist.valid.images, mnist.valid.labels)
    print(
        f"epoch {epoch}: nll {nll:.3f}, {fraction:.1%} active, validation error "
        f"{sampled:.2%} sampled, {expected:.2%} expected, {thresholded:.2%} thresholded"
    )
print("test error " + ", ".join(f"{e:.2%}" for e in errors(mnist.test.images, mnist.test.labels)))
