"""Q as a function of a continuous action at each state: what a critic of continuous actions gives.

    q.at(action)          Q(s, a), [...]
    q.gradient(action)    ∇_a Q, [..., D]
    q.linear_at(action)   its first order about an action, a `Quadratic`
    q.expectation(dist)   E[Q(s, a)] over the actions of a distribution, [...]
    q.affine(scale, shift)

All leaves have the axes of the states in front, so that what maps, masks and reshapes trees does so
with functions.
"""

from pg.layers.quadratic import Quadratic
from pg.layers.sinusoids import Sinusoids

__all__ = ["ActionFunction"]

ActionFunction = Quadratic | Sinusoids
