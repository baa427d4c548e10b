"""The machine: its peaks, which make the bound of our times, and the libraries that compute."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

PRODUCT_FLOPS = 2 * 2048**3
COPY_BYTES = 2 * 2**28
"""Read and written by one copy of 256 MiB, more than caches hold."""

_NO_STATISTICS = np.empty((1, 0))


class Product:
    """A large float32 product in NumPy's BLAS: the peak of arithmetic."""

    def __init__(self, *_, **__):
        self.a, self.b, self.out = np.random.default_rng(0).random((3, 2048, 2048), "float32")

    def turn(self):
        """Do it once."""
        np.matmul(self.a, self.b, out=self.out)
        return _NO_STATISTICS


class Copy:
    """A copy of a large array, a part for each thread: the bandwidth of memory."""

    def __init__(self, *_, **__):
        n_threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        size = COPY_BYTES // 2 // n_threads
        self.sources = [np.ones(size, "uint8") for _ in range(n_threads)]
        self.targets = [np.empty(size, "uint8") for _ in range(n_threads)]
        self.threads = ThreadPoolExecutor(n_threads)

    def turn(self):
        """Do it once; NumPy lets go of the interpreter's lock while it copies."""
        list(self.threads.map(np.copyto, self.targets, self.sources))
        return _NO_STATISTICS


def describe_process():
    """Say which libraries compute in this process: kernel, number of threads, thread layer."""
    words = [
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')} kernels, "
        f"{pool['num_threads']} threads ({pool.get('threading_layer')})"
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
    if (numba := sys.modules.get("numba")) and _has_threads(numba):
        words.append(f"numba, {numba.get_num_threads()} threads ({numba.threading_layer()})")
    if torch := sys.modules.get("torch"):
        kind = torch.backends.cpu.get_cpu_capability()
        words.append(f"torch {kind} kernels, {torch.get_num_threads()} threads")
    if jax := sys.modules.get("jax"):
        words.append(f"jax on {', '.join(device.device_kind for device in jax.devices())}")
    return "; ".join(words)


def _has_threads(numba):
    try:
        numba.threading_layer()
    except ValueError:  # no parallel kernel has run yet
        return False
    return True
