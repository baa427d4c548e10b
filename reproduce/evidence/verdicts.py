"""For each claim of section 4: reproduced, partly or not, and the number that decides it.

The rules are fixed here. They look at the recorded runs of all seeds and at nothing else.
"""

from typing import NamedTuple

import numpy as np

from evidence import spread

N_TEST = 10_000
"""Test images of MNIST: the paper's error rates have the spread of so many draws."""

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"


class Verdict(NamedTuple):
    """What the paper says, whether our runs agree, and the number that decides."""

    claim: str
    verdict: str
    number: str


def all_verdicts(plain, policy, deep):
    """Return the verdicts on section 4, in its order.

    Parameters
    ----------
    plain, policy, deep : list of Record
        All seeds of baseline-500, policy-500 and policy-800-800, in one order of seeds.
    """
    return [
        error_rate("A network of 500 units has a test error of 1.7 %.", 0.017, plain),
        few_at_first(policy + deep),
        recruited(policy),
        error_rate("With a policy the test error is 2 %.", 0.02, policy),
        more_epochs(plain, policy),
        first_layer_faster(deep),
        entropy_falls(deep),
    ]


def error_rate(claim, reported, runs):
    """Compare the mean over seeds with the reported rate, which has its own binomial interval.

    Reproduced: the reported rate lies in our interval. Partly: the two intervals overlap.
    """
    mean, low, high = spread.over_seeds([run.best_attributes["test_error"] for run in runs])
    least, most = spread.of_rate(reported, N_TEST)
    within, overlap = low <= reported <= high, low <= most and least <= high
    verdict = REPRODUCED if within else PARTLY if overlap else NOT
    number = (
        f"{100 * mean:.2f} % over {len(runs)} seeds (95 % interval of the mean {100 * low:.2f} to "
        f"{100 * high:.2f} %); the reported rate on {N_TEST} images: {100 * least:.2f} to "
        f"{100 * most:.2f} %"
    )
    return Verdict(claim, verdict, number)


def few_at_first(runs):
    """Whether 10-15 % of the units are active before training: the initial rates."""
    rates = sorted({run.attributes["experiment"]["initial_rate"] for run in runs})
    verdict = REPRODUCED if 0.1 <= rates[0] and rates[-1] <= 0.15 else NOT
    shown = ", ".join(f"{100 * rate:g} %" for rate in rates)
    return Verdict("At first 10-15 % of the units are active.", verdict, f"set to {shown}")


def recruited(runs):
    """Whether about 30 % (25 to 35) of the units are active at the lowest validation error."""
    at_best = [100 * run.curves["active_fraction"][run.best_epoch - 1, 0] for run in runs]
    mean, low, high = spread.over_seeds(at_best)
    inside = [25 <= value <= 35 for value in at_best]
    return Verdict(
        "About 30 % of the units are active when the error is the lowest.",
        _share(inside),
        f"{mean:.1f} % (95 % interval {low:.1f} to {high:.1f} %), from {min(at_best):.1f} to "
        f"{max(at_best):.1f} %",
    )


def more_epochs(plain, policy):
    """Whether the best model takes more epochs with policies, seed by seed."""
    pairs = [(a.best_epoch, b.best_epoch) for a, b in zip(plain, policy, strict=True)]
    text = ", ".join(f"{with_policy} / {without}" for without, with_policy in pairs)
    more = [with_policy > without for without, with_policy in pairs]
    return Verdict(
        "With a policy more training epochs are needed.",
        _share(more),
        f"with {sum(more)} of {len(more)} seeds (epochs with / without policies: {text})",
    )


def first_layer_faster(runs, n_epochs=5):
    """Whether layer 1 gains units at least twice as fast as layer 2 in the first epochs."""
    curves = [100 * run.curves["active_fraction"] for run in runs]
    gains = np.array([curve[n_epochs - 1] - curve[0] for curve in curves])
    ratios = gains[:, 0] / gains[:, 1]
    return Verdict(
        "In the 800-800 network the first layer recruits units much faster than the second.",
        _share(ratios >= 2),
        f"over the first {n_epochs} epochs {ratios.min():.1f} to {ratios.max():.1f} times as fast "
        f"({gains[:, 0].mean():.1f} against {gains[:, 1].mean():.1f} points)",
    )


def entropy_falls(runs):
    """Whether the entropy of the first policy is lower at the best epoch than at the first."""
    ends = [run.curves["policy_entropy"][[0, run.best_epoch - 1], 0] for run in runs]
    first, last = np.array(ends).T
    return Verdict(
        "The entropy of the first policy decreases.",
        _share(last < first),
        f"from {first.mean():.3f} to {last.mean():.3f} nats per unit (mean over the seeds)",
    )


def _share(agreeing):
    """Return the verdict on a statement that holds with some of the seeds."""
    return REPRODUCED if all(agreeing) else PARTLY if any(agreeing) else NOT


def table(verdicts):
    """Return the verdicts in Markdown."""
    lines = ["| claim of section 4 | verdict | what decides it |", "| --- | --- | --- |"]
    lines += [f"| {v.claim} | {v.verdict} | {v.number} |" for v in verdicts]
    return "\n".join(lines) + "\n"
