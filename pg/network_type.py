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
    # it sees standardised observations, and does not standardise them itself
    expects_standardised: bool = False
    # it sees `Masked` observations: illegal actions have probability 0
    masked: bool = False
    # the part that it sees of an observation that has what another network sees, too
    view: View = ()
    # a critic on the policy's own layers: its params are the pair `Params`, its carry is shared
    shared: bool = False
    # -> parameters of the reference policy; None: those with which training starts
    reference: Callable[[], PyTree] | None = None
    # params, noise -> the carry of an episode, where it is random; None: it is `carry`
    draw_carry: Callable[[PyTree, PyTree], PyTree] | None = None
    # the distribution of that noise, like an action's: `draw` and `noise_quantile`
    carry_noise: Any = None
    # of what it sees, where that is one array of numbers; None: of something else, or not stated
    obs_shape: tuple[int, ...] | None = None
    # it sees a `Pair`, whose outcome is the later "state" or "reward", or the "action" of the step;
    # "" of one observation
    outcome: str = ""
    # the actions over which a critic of an action is averaged in each state
    action_samples: int = 0

    @property
    def recurrent(self) -> bool:
        """True for a network whose output depends on more of the episode than what it sees now."""
        return bool(jax.tree.leaves(self.carry))

    @property
    def remembers(self) -> bool:
        """True for a recurrent network whose carry the observations change: one that is drawn for
        an episode stays as it is.
        """
        return self.recurrent and self.draw_carry is None


class Pair(NamedTuple):
    """The input of a hindsight network, a step's observation and a later outcome, or of a critic of
    continuous actions, an observation and an action.
    """

    obs: PyTree  # leaves [T, B, ...]
    outcome: PyTree  # leaves [T, B, ...]

    def map_observations(self, f: Callable[[PyTree], PyTree], outcome: str) -> "Pair":
        """The pair with `f` of its observations.

        Args:
            f: A function of an observation.
            outcome: "state" where the outcome is an observation too, as in `Network.outcome`.
        """
        later = f(self.outcome) if outcome == "state" else self.outcome
        return Pair(f(self.obs), later)


class Carries(NamedTuple):
    """The carries of a policy and of its critic; `()` for one that has none of its own."""

    policy: PyTree
    critic: PyTree
