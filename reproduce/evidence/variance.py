"""The variance of the policy gradient by each estimator, at points of training."""


def table(results):
    """Return the variances in Markdown, as multiples of that of the preset's own estimator.

    Parameters
    ----------
    results : dict
        As `gradient_variance.py` writes it.
    """
    measured = {}
    for one in results["measured"]:
        place = one["preset"], one["epoch"], one["layer"]
        measured.setdefault(place, {})[one["variant"]] = one
    variants = list(next(iter(measured.values())))
    own = variants[0]
    lines = [
        "| network | epoch | layer | noise of the preset's own "
        + "".join(f"| {variant} " for variant in variants[1:]) + "|",
        "| --- " * (3 + len(variants)) + "|",
    ]  # fmt: skip
    for (preset, epoch, layer), found in measured.items():
        reference = found[own]
        signal = max(reference["squared_mean"], 0)
        noise = f"{reference['variance'] / signal:.3g}" if signal else "no signal found"
        ratios = [found[v]["variance"] / reference["variance"] for v in variants[1:]]
        lines.append(
            f"| {preset} | {epoch} | {layer} | {noise} "
            + "".join(f"| {ratio:.2g} " for ratio in ratios) + "|"
        )  # fmt: skip
    note = (
        f"{results['n_draws']} draws of the masks for one mini-batch; seed {results['seed']}. "
        "Noise is the variance of the gradient, summed over its entries, divided by the squared "
        "length of its mean. The other columns are variances as multiples of that of the preset. "
        f"They leave out that `leave-one-out`, `arm` and `disarm` take longer. Commit "
        f"{results['git_commit'][:12]}; `{results['command']}`."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
