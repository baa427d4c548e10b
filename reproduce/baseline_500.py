"""Section 4: the plain network reaches a test error of 1.7 %.

"We first evaluated the performance of a standard neural network with 28x28 inputs, 500 hidden
units, and 10 outputs over the MNIST dataset. [...] Under these conditions, a test error of 1.7%
was achieved."

Trains the preset baseline-500 into runs/, or goes on with it, and prints the paper's number beside
ours.
"""

import sys

import common

if __name__ == "__main__":
    sys.exit(common.main_of_preset(__doc__, "baseline-500"))
