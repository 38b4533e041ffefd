"""A network as a pair of pure functions, and the carries of two of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from pg.envs.views import View

__all__ = ["Carries", "Network", "Pair"]


class Network(NamedTuple):
    """A policy (its output is a distribution) or a critic (its output is a value), as pure
    functions.
    """

    init: Callable[[PRNGKeyArray], PyTree]  # key -> params
    # params, carry, obs, first -> carry, output
    apply: Callable[[PyTree, PyTree, Any, Array], tuple[PyTree, Any]]
    carry: PyTree = ()
    # it expects standardised observations, and does not standardise them itself
    expects_standardised: bool = False
    # it expects `Masked` observations, and gives illegal actions probability 0
    masked: bool = False
    # the part of an observation that it sees, if another network sees another part
    view: View = ()
    # a critic on the policy's layers: its params are the pair `Params`, its carry is shared
    shared: bool = False
    # -> parameters of the reference policy; None: the initial parameters
    reference: Callable[[], PyTree] | None = None
    # params, noise -> the carry of an episode, if it is random; None: it is `carry`
    draw_carry: Callable[[PyTree, PyTree], PyTree] | None = None
    # the distribution of that noise, like an action's: `draw` and `noise_quantile`
    carry_noise: Any = None
    # the shape of its input, if that is one array of numbers; None: otherwise, or unknown
    obs_shape: tuple[int, ...] | None = None
    # its input is a `Pair` with the later "state" or "reward", or the step's "action", as the
    # outcome; "": a single observation
    outcome: str = ""
    # the gradients of its parameters over thousands of rows have the same bits on any number of
    # cores, see `pg.layers.dense`
    has_fixed_sums: bool = False
    # number of actions over which a critic of actions is averaged in each state
    action_samples: int = 0

    @property
    def recurrent(self) -> bool:
        """True for a network whose output depends on more of the episode than the current input."""
        return bool(jax.tree.leaves(self.carry))

    @property
    def remembers(self) -> bool:
        """True for a recurrent network whose carry depends on observations; a carry that is drawn
        once per episode does not.
        """
        return self.recurrent and self.draw_carry is None


class Pair(NamedTuple):
    """The input of a hindsight network, a step's observation and a later outcome, or of a critic of
    continuous actions, an observation and an action.
    """

    obs: PyTree  # leaves [T, B, ...]
    outcome: PyTree  # leaves [T, B, ...]

    def map_observations(self, f: Callable[[PyTree], PyTree], outcome: str) -> "Pair":
        """The pair with `f` applied to its observations.

        Args:
            f: A function of an observation.
            outcome: "state" if the outcome is an observation too, see `Network.outcome`.
        """
        later = f(self.outcome) if outcome == "state" else self.outcome
        return Pair(f(self.obs), later)


class Carries(NamedTuple):
    """The carries of a policy and of its critic; `()` for none."""

    policy: PyTree
    critic: PyTree
