# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host, and knows no others.
"""Which source should live on which host, so that the hosts need the fewest pages together.

problem.py says what is asked, and state.py knows what a placement takes and what a move would change. search.py and shake.py look for a
better one, order.py brings the moves into an order that can be carried out, bound.py and solver.py say how far from the best it can be.
"""

SECONDS = 60.0  # that a search takes at most, if nobody says
