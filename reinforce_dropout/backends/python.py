"""The backend python: NumPy runs the graph as it is written, node by node.

Nothing is compiled, so it begins at once. But each step is many times slower than elsewhere.
"""

from pytensor.compile.mode import Mode


def check():
    """Return, because the backend works everywhere."""


def mode(adaptive=False):
    """Return the compilation mode."""
    return Mode(linker="py", optimizer=None)
