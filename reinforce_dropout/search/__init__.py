"""The paper's future work: a more efficient policy search."""
