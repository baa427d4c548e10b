"""What mini-batches free stays with the process."""

import platform
import resource

import numpy as np
import pytest

from reinforce_dropout.native import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_arrays_of_the_next_batch_take_the_pages_of_the_last():
    """By default the system would have to clear all pages again for each batch."""
    memory.keep_freed()
    n_bytes, n_arrays = 4_000_000, 8  # together less than what is kept
    faults = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        batch = [np.ones(n_bytes, np.uint8) for _ in range(n_arrays)]
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        del batch
    pages = n_arrays * n_bytes / resource.getpagesize()
    assert max(faults[1:]) < 0.1 * pages
