"""Pieces of kernels written in LLVM's own instructions: vectors, tiles, prefetches."""
