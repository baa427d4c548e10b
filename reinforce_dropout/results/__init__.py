"""Results: records of runs, their provenance, and the tables and figures drawn from them."""
