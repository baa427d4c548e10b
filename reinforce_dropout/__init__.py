"""Conditional computation with sigmoid-Bernoulli policies, after Bacon et al. (2015)."""

__version__ = "0.1.0"
