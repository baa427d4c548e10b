"""What the machine can do: the bound that a training step is compared with."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl
from scipy.linalg.blas import sgemm

PRODUCT_FLOPS = 2 * 2048**3
COPY_BYTES = 2 * 2**28
"""Read and written by one copy of 256 MiB, more than caches hold."""

_NO_STATISTICS = np.empty((1, 0))


class Product:
    """A large float32 product in SciPy's BLAS: the peak of arithmetic."""

    def __init__(self, *_):
        rng = np.random.default_rng(0)
        self.a, self.b, self.out = (
            np.asfortranarray(rng.random((2048, 2048), "float32")) for _ in range(3)
        )

    def turn(self):
        """Do it once."""
        sgemm(1.0, self.a, self.b, c=self.out, overwrite_c=True)
        return _NO_STATISTICS


class Copy:
    """A copy of a large array, a part for each thread: the bandwidth of memory."""

    def __init__(self, *_):
        n_threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        size = COPY_BYTES // 2 // n_threads
        self.sources = [np.ones(size, "uint8") for _ in range(n_threads)]
        self.targets = [np.empty(size, "uint8") for _ in range(n_threads)]
        self.threads = ThreadPoolExecutor(n_threads)

    def turn(self):
        """Do it once; NumPy lets go of the interpreter's lock while it copies."""
        list(self.threads.map(np.copyto, self.targets, self.sources))
        return _NO_STATISTICS
