"""Section 4: of two layers the first becomes active faster, and its policy's entropy falls.

"[...] we also tried a network consisting of two hidden layers of 800 units. [...] We can observe in
figure 1b that the first layer increases the number of active units much faster than the second
layer. [...] When plotting the entropy of the first policy, we see that it decreases as more
structure is discovered and becomes more deterministic."

Trains the preset policy-800-800 into runs/, or goes on with it, and prints the paper's statements
beside our numbers.
"""

import sys

import common

if __name__ == "__main__":
    sys.exit(common.main_of_preset(__doc__, "policy-800-800"))
