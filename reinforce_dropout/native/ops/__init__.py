"""Ops and their translations to Numba. The Ops of block dropout are in `blocks`."""
