"""Section 4: a policy that only minds the likelihood recruits units, at 2 % of test error.

"[...] we randomly initialized the parameters of our policy so that the initial number of active
units was about 10-15%. [...] we would expect that the optimal policy would achieve its goal by
recruiting as many units as possible. This behavior can be observed in Figure 1a where about 30% of
the units were active when the testing error was the lowest. While the test error of 2% did not
suffer significantly, the number of training epochs increased compared to the vanilla network."

Trains the preset policy-500 into runs/, or goes on with it, and prints the paper's numbers beside
ours.
"""

import sys

import common

if __name__ == "__main__":
    sys.exit(common.main_of_preset(__doc__, "policy-500"))
