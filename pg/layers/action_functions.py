"""Q as a function of a continuous action at each state, the output of a critic of continuous
actions.

    q.at(action)          Q(s, a), [...]
    q.gradient(action)    ∇_a Q, [..., D]
    q.linear_at(action)   its first-order expansion about an action, a `Quadratic`
    q.expectation(dist)   E[Q(s, a)] over the actions of a distribution, [...]
    q.affine(scale, shift)

All leaves have the axes of the states as leading axes, so that code that maps, masks and reshapes
trees also works with functions.
"""

from pg.layers.quadratic import Quadratic
from pg.layers.sinusoids import Sinusoids

__all__ = ["ActionFunction"]

ActionFunction = Quadratic | Sinusoids
