"""What `block_speedup.py` times, a module a measurement, the file of its results, and the figure.

``forward`` times forward passes; what it has found is a `results.Forward` for each setting, and
`results.Results` holds one run.
"""
