"""The training steps of two systems beside the same steps in JAX."""

import numpy as np


def table(results):
    """Return the times and their ratios in Markdown.

    Parameters
    ----------
    results : dict
        As `systems_speed.py` writes it.
    """
    lines = [
        "| network | threads | ours, microseconds a step | JAX | ours / JAX | quartiles |",
        "| --- " * 6 + "|",
    ]
    for row in results["measured"]:
        ours, jax = np.array(row["ours"]), np.array(row["jax"])
        low, median, high = np.percentile(ours / jax, (25, 50, 75))
        lines.append(
            f"| {row['preset']} | {row['n_threads']} | {np.median(ours):.0f} "
            f"| {np.median(jax):.0f} | {median:.2f} | {low:.2f} to {high:.2f} |"
        )
    note = (
        f"Times are medians of {results['n_turns']} turns of {results['n_steps']} steps. Both took "
        "turns, and the ratio is the median of the ratios turn by turn. JAX's step was written by "
        "hand, and runs in one compiled scan. dropout-800-800 has rectified linear units here. "
        f"{results['host_cpu']}; commit {results['git_commit'][:12]}; `{results['command']}`."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
