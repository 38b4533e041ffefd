"""A saved policy that acts: observation in, action out, as in the run that trained it.

policy = pg.load_policy("results/Pendulum-v1/ppo/mine")  # or "CartPole-v1/ppo", from the zoo
action = policy(obs)         # the mode        policy(obs, key)    # a sample
"""

import functools
import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pg import envs, networks, normalisation, numerals
from pg.config import Config
from pg.envs import Env, ProductSpace
from pg.envs.observations import is_shape
from pg.evaluation import Evaluation, evaluate_network
from pg.inputs import check_key, count, described, numbers, shown
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.runs import folders, parameters, zoo


@dataclass(frozen=True, eq=False)  # hashed by its identity, so that `jax.jit` accepts it
class Policy:
    """The policy of a run, with the statistics, the encoding and the action bounds of its training.

    `pg.episodes(policy.env, policy.network, policy.params, key)` runs episodes of it.
    """

    config: Config
    env: Env  # one copy, with the parameters of the run
    network: Network  # sees observations as `env` returns them, standardised where the run did so
    params: Any  # of `network`, of one seed

    def __repr__(self) -> str:
        """A line, as a notebook shows it, without the arrays."""
        number = sum(x.size for x in jax.tree.leaves(self.params))
        return f"<policy of {self.config.title}, {numerals.counted(number, 'parameter')}>"

    def __call__(self, obs: Any, key: Any = None, *, mask: Any = None) -> Any:
        """The action for an observation of the environment, or for a batch of them with any leading
        axes.

        Args:
            obs: [..., *O], as the environment itself returns it, before encoding, `observe` and
                standardisation; of named parts only those that the policy sees are needed.
            key: for samples, one for all observations; None: the mode of the policy. For a policy
                whose parameters are drawn once per episode, it draws those, for each observation:
                use the same key for all steps of an episode.
            mask: [..., A] the legal actions at each observation, if the environment has action
                masks.

        Returns:
            Actions for the environment, within its bounds: [...] or [..., D], or a tree if it has
            several actions at once.

        Raises:
            ValueError: observations of another shape; a policy with a recurrent cell, which needs
            `step`.
        """
        if self.network.remembers:
            raise ValueError(
                "this policy has a recurrent cell: write carry = policy.start() at the start of "
                "an episode, and then carry, action = policy.step(carry, obs) instead of "
                "policy(obs)"
            )
        return self.step((), obs, key, mask=mask)[1]

    def start(self, *batch: int) -> Any:
        """The state of the recurrent cell at the start of episodes, [*batch, ...]; () without one.

        Raises ValueError for sizes that are not whole numbers.
        """
        batch = tuple(count("a size of the batch", size, low=0) for size in batch)
        if self.network.draw_carry is not None:
            return ()
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), self.network.carry)

    def step(
        self, carry: Any, obs: Any, key: Any = None, *, first: Any = False, mask: Any = None
    ) -> tuple[Any, Any]:
        """The state of the recurrent cell after an observation, and the action.

        Other arguments are as in a call.

        Args:
            carry: as `start` or the previous step returned it, with the leading axes of `obs`.
            obs: [..., *O].
            key: None: the mode.
            first: True if an episode begins with this observation, [...], for environments that
                reset by themselves.
            mask: as in a call.

        Raises:
            ValueError: observations, a carry or a `first` of another shape.
        """
        if key is not None:
            check_key(key)
        if is_shape(self.env.obs_shape) and not self.env.views.names:
            obs = numbers("obs", obs, "give what the environment's reset or step returns")
        else:
            obs = jax.tree.map(jnp.asarray, obs)
        return self._step(carry, obs, key, numbers("first", first), mask)

    def evaluate(self, key: Any, num_episodes: int = 100, *, greedy: bool = False) -> Evaluation:
        """Returns of complete episodes, all vmapped, in the environment of the run and with its
        statistics; see `pg.evaluate`.

        Args:
            key: a random key.
            num_episodes: N episodes.
            greedy: the mode of the policy instead of a sample.

        Raises:
            ValueError: an argument of another kind.
        """
        check_key(key)
        num_episodes = count("num_episodes", num_episodes)
        env = envs.configured(self.config, num_episodes)
        horizon = self.config.horizon

        @jax.jit
        def evaluated(params: Any, key: Any) -> Evaluation:
            return evaluate_network(env, self.network, params, key, horizon, greedy=greedy)

        return evaluated(self.params, key)

    def act(self, carry: Any, seen: Any, first: Any, key: Any = None) -> tuple[Any, Any]:
        """The state of the recurrent cell and the action, for encoded observations.

        Args:
            carry: [N, ...]; () without a recurrent cell.
            seen: [N, *O], as `env.encode` returns it.
            first: [N], True at the start of an episode.
            key: as in a call.
        """
        if self.network.draw_carry is None:
            carry, dist = self.network.apply(self.params, carry, seen, first)
        else:
            drawn = self._drawn_carry(first.shape[0], key)
            dist = self.network.apply(self.params, drawn, seen, first)[1]
        action = dist.action(dist.mode() if key is None else dist.sample(dist.draw(key)))
        own_action = self.env.to_own_action
        if isinstance(self.env.action_space, ProductSpace):
            own_action = jax.vmap(
                own_action
            )  # it assembles one action from its parts; other spaces work elementwise
        return carry, own_action(action)

    def _drawn_carry(self, number: int, key: Any) -> Any:
        """The carries that a network draws for episodes from a key, [number, ...]; key None: those
        of greedy episodes.
        """
        draw_carry = self.network.draw_carry
        if key is None or draw_carry is None:
            return networks.start(self.network, number)
        noise = networks.carry_noise(self.network, number).draw(key)
        return jax.vmap(draw_carry, (None, 0))(self.params, noise)

    @functools.cached_property
    def _step(self) -> Any:
        return jax.jit(self._stepped)

    def _stepped(self, carry: Any, obs: Any, key: Any, first: Any, mask: Any) -> tuple[Any, Any]:
        seen, batch = self.env.encoded(obs, mask)
        self._check_carry(carry, batch)
        if first.shape not in ((), batch):
            got = list(first.shape)
            raise ValueError(f"first must be [...] = {list(batch)} as obs, got shape {got}")
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(batch) :]), carry)
        begins = jnp.broadcast_to(first, batch).reshape(-1)
        flat, action = self.act(flat, seen, begins, key)
        carry = jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), flat)
        return carry, jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), action)

    def _check_carry(self, carry: Any, batch: tuple[int, ...]) -> None:
        """Raises ValueError unless this is the state of one recurrent cell for each observation."""
        expected = jax.eval_shape(lambda: self.start(*batch))
        if jax.tree.map(jnp.shape, expected) == jax.tree.map(jnp.shape, carry):
            return
        sizes = ", ".join(map(str, batch))
        raise ValueError(
            "carry must have the leading axes of obs: "
            f"start with policy.start({sizes}), and continue with what the previous step returned"
        )


# The custom parts that a policy needs to act.
NEEDED = ("env", "policy")


def load_policy(
    folder: Path | str,
    *,
    seed: int | None = None,
    env: Any = None,
    policy: Any = None,
    best: bool = False,
    allow_changed_code: bool = False,
) -> Policy:
    """The policy that a run has trained, from its folder, or from that of a sweep: the
    best configuration; or a policy of the zoo by its name, such as "CartPole-v1/ppo".

    Args:
        folder: the one that `pg train` or `pg sweep` printed last, or the name of a policy of the
            zoo (`pg zoo` lists them); a folder takes precedence over a name.
        seed: one of the run's seeds; default: its first.
        env: the environment object of the run, or `FILE.py:CLASS`, if its environment is custom.
        policy: the policy's function or Network, or `FILE.py:NAME`, if the policy is custom; a file
            must have the digest that the run's folder records.
        best: the parameters with the best evaluation during training, instead of the last ones.
        allow_changed_code: the file may have another digest.

    Raises:
        ValueError: there is no finished run, its files are corrupt, or it has no such seed.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(
            f"folder must be the path of a run, as in 'results/...', got {described(folder)}"
        )
    folder = folders.run_folder(zoo.resolved(folder))
    config, h = folders.read_setup(
        folder,
        env,
        parts={"policy": policy},
        needed=NEEDED,
        allow_changed_code=allow_changed_code,
    )
    options = folders.read_options(folder)
    begin, num_seeds = options.get("seed", 0), options.get("seeds", 1)
    is_known = isinstance(seed, Integral) and int(seed) in range(begin, begin + num_seeds)
    if seed is not None and (isinstance(seed, bool) or not is_known):
        last = begin + num_seeds - 1
        raise ValueError(
            f"seed must be from {begin} to {last}, those of {folder}, got {shown(seed)}"
        )
    trained_in = envs.configured(config, 1, h.env_params)
    like = acting_shapes(config, trained_in, networks.make_policy(config, trained_in))
    index = 0 if seed is None else seed - begin

    def of_the_seed(x: jax.Array, shape: Any) -> jax.Array:
        return x[index] if x.ndim > shape.ndim else x

    stored = parameters.read_policy(folder, *like, best=best)
    params, normaliser = jax.tree.map(of_the_seed, stored, like)
    # acting does not need the critic's part of the observation
    env = envs.configured(config, 1, h.env_params, for_critic=False)
    network = networks.make_policy(config, env)
    normaliser = normalisation.seen_by(normaliser, trained_in.views.policy)
    return Policy(
        config, env, normalisation.with_standardised_observations(network, normaliser), params
    )


def acting_shapes(config: Config, env: Env, policy: Network) -> tuple[Any, Normaliser]:
    """The shapes of a policy's parameters and of the running statistics, all that it needs to act.

    Args:
        config: its settings.
        env: the environment that it acts in.
        policy: its network.
    """
    params = jax.eval_shape(policy.init, jax.random.key(0))
    return params, jax.eval_shape(lambda: normalisation.start(config, env.obs_shape))
