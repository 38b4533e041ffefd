"""Several actions at once: product distributions against the enumeration of their joint actions.
Observations that are trees: each array of them where a single one would be.
"""

import itertools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState

import pg
from pg.config import Config
from pg.distributions import Categorical, Gaussian, Product
from pg.envs import Discrete, MultiDiscrete, ProductSpace, make_env, spaces
from pg.envs.actions import action_space
from pg.evaluation import evaluate
from pg.networks import Network, make_policy
from pg.rollout import episodes
from pg.runs import execution, folders, parameters

KEY = jax.random.key(0)
SIZES = (2, 3, 4)


def product(key: jax.Array, masked: bool = False) -> Product:
    keys = jax.random.split(key, len(SIZES))
    dist = Product(
        tuple(Categorical(jax.random.normal(k, (n,))) for k, n in zip(keys, SIZES, strict=True))
    )
    masks = jnp.array([True, True]), jnp.array([True, False, True]), ()
    return dist.masked(masks) if masked else dist


def joint(dist: Product) -> Categorical:
    """One Categorical of all combinations, by their probabilities."""
    log_p = [jax.nn.log_softmax(part.logits) for part in dist.parts]
    return Categorical(
        jnp.array([sum(x[i] for x, i in zip(log_p, a, strict=True)) for a in combinations()])
    )


def combinations() -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, SIZES)))


@pytest.mark.parametrize("masked", [False, True])
def test_a_product_is_the_joint_distribution_of_all_combinations(masked: bool) -> None:
    with jax.enable_x64(True):
        dist, other = (product(k, masked) for k in jax.random.split(KEY))
        one, another = joint(dist), joint(other)
        actions = tuple(jnp.array(column) for column in zip(*combinations(), strict=True))
        wide = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(actions[0]), *x.shape)), dist)
        np.testing.assert_allclose(wide.log_prob(actions), one.logits, atol=1e-12)
        np.testing.assert_allclose(jax.nn.logsumexp(one.logits), 0.0, atol=1e-12)
        np.testing.assert_allclose(dist.entropy(), one.entropy(), atol=1e-12)
        np.testing.assert_allclose(dist.kl(other), one.kl(another), atol=1e-12)
        assert combinations()[int(one.mode())] == tuple(map(int, dist.mode()))
        noise = jax.vmap(dist.draw)(jax.random.split(KEY, 20_000))
        samples = jax.vmap(dist.sample)(noise)
        number = np.ravel_multi_index([np.asarray(x) for x in samples], SIZES)
        share = np.bincount(number, minlength=24) / 20_000
        p = np.exp(one.logits)
        assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)).all()


class Lock(Clock):
    """Two dials and a lever: the reward is 1 less the distance from what opens it."""

    def __init__(self, space: Any) -> None:
        self.space = space

    def action_space(self, params: Any) -> Any:
        return self.space

    def dials(self, action: Any) -> tuple[jax.Array, jax.Array]:
        if isinstance(action, dict):
            return action["dials"][0], action["dials"][1] + action["lever"][0]
        return action[0], action[1]

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: Any) -> Any:
        first, second = self.dials(action)
        state = ClockState(place=state.place, time=state.time + 1)
        reward = 1.0 - jnp.abs(first - 2.0) - jnp.abs(second - 1.0)
        return self.get_obs(state), state, reward, state.time >= 1, {}


def of_parts() -> spaces.Dict:
    both = spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)])
    return spaces.Dict({"dials": both, "lever": spaces.Box(-1.0, 1.0, (1,))})


@pytest.mark.parametrize(
    "space",
    [
        pytest.param(MultiDiscrete((3, 2)), id="numbers", marks=pytest.mark.slow),
        pytest.param(
            gymnasium.spaces.MultiDiscrete([3, 2]), id="gymnasium", marks=pytest.mark.slow
        ),
        pytest.param(of_parts(), id="dictionary", marks=pytest.mark.slow),
    ],
)
def test_several_actions_are_learned_together(space: Any) -> None:
    config = Config(
        env=Lock(space),
        estimator="ppo",
        num_envs=32,
        num_steps=4,
        num_updates=40,
        hidden_sizes=(8,),
    )
    h = config.hyperparams(learning_rate=0.01)
    state, metrics = jax.jit(pg.make_train(config))(KEY, h)
    best = evaluate(config, state.params.policy, KEY, 8, greedy=True).returns
    assert (best > 0.8).all(), best
    assert metrics["return"][0] < 0


def test_actions_reach_the_environment_in_its_own_structure() -> None:
    class Stated:
        def action_space(self, params: Any) -> Any:
            return gymnasium.spaces.Dict(
                {
                    "b": gymnasium.spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [0, 0]]),
                    "a": gymnasium.spaces.Tuple(
                        [
                            gymnasium.spaces.Box(-1.0, 1.0, (2,)),
                            gymnasium.spaces.Discrete(3, start=7),
                        ]
                    ),
                }
            )

    space, to_own = action_space(Stated(), None)
    # as gymnasium sorts the names
    assert [getattr(part, "n", None) for part in space.parts] == [None, 3, 2, 3, 4, 5]
    own = to_own((jnp.array([3.0, 0.5]), jnp.int32(2), *map(jnp.int32, (1, 2, 3, 4))))
    np.testing.assert_array_equal(own["b"], [[1, 3], [3, 4]])
    np.testing.assert_array_equal(own["a"][0], [1.0, 0.5])
    assert own["a"][1] == 9


class Dialled(Lock):
    """The second dial turns only to 1, and the first not to 2."""

    def action_mask(self, state: Any, params: Any) -> Any:
        return jnp.array([True, True, False]), jnp.array([False, True])


class Even(Lock):
    """A mask that is one array."""

    def action_mask(self, state: Any, params: Any) -> Any:
        return jnp.array([[True, False], [False, True]])


@pytest.mark.slow
def test_masks_of_several_actions() -> None:
    for env, dials in (
        (Dialled(MultiDiscrete((3, 2))), None),
        (Even(MultiDiscrete((2, 2))), (0, 1)),
    ):
        made = make_env(env, 64)
        policy = make_policy(Config(preset=None), made)
        traj = episodes(made, policy, policy.init(KEY), KEY)
        first, second = (np.asarray(x[traj.valid]) for x in traj.action)
        assert (second == 1).all()
        assert set(first) == ({0, 1} if dials is None else {0})
        assert [mask.shape[-1] for mask in traj.mask] == [
            part.n for part in made.action_space.parts
        ]
    dist = policy.apply(policy.init(KEY), (), made.reset(KEY)[1], jnp.ones(64, bool))[1]
    np.testing.assert_array_equal(dist.entropy(), 0.0)
    with pytest.raises(ValueError, match=r"one array for each of the 3 discrete actions, of sizes"):
        make_env(Dialled(MultiDiscrete((3, 2, 2))), 2)


class Armed(Clock):
    """Two actions of one size, whose names are not in order, with a mask each."""

    ordered: type[dict] = dict

    def action_space(self, params: Any) -> Any:
        return spaces.Dict({"move": spaces.Discrete(3), "aim": spaces.Discrete(3)})

    def action_mask(self, state: ClockState, params: Any) -> Any:
        move, aim = jnp.array([True, False, False]), jnp.array([False, False, True])
        return self.ordered([("move", move), ("aim", aim)])

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: Any) -> Any:
        legal = (action["move"] == 0) & (action["aim"] == 2)
        state = ClockState(place=state.place, time=state.time + 1)
        return self.get_obs(state), state, legal.astype(float), state.time >= 3, {}


@pytest.mark.parametrize("ordered", [dict, OrderedDict])
def test_the_masks_of_named_actions_go_by_their_names(ordered: type[dict]) -> None:
    env = Armed()
    env.ordered = ordered
    made = make_env(env, 8)
    policy = make_policy(Config(preset=None), made)
    traj = episodes(made, policy, policy.init(KEY), KEY)
    assert (traj.reward[traj.valid] == 1).all()


def test_a_part_that_cannot_be_masked_is_one_sentence() -> None:
    mask = (jnp.array([True, False]),)
    with pytest.raises(ValueError, match=r"has no method masked\(mask\)"):
        Product((Gaussian(jnp.zeros(1), jnp.zeros(1)),)).masked(mask)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"estimator": "all_action"},
            "every action, and so needs one Discrete or one Box with one axis",
        ),
        ({"action_distribution": "squashed"}, "the environment has discrete ones"),
    ],
)
def test_what_is_not_for_several_actions_is_refused(settings: Any, said: str) -> None:
    config = Config(env=Lock(MultiDiscrete((3, 2))), num_envs=2, **settings)
    with pytest.raises(ValueError, match=said):
        pg.make_learner(config)


def test_a_network_of_ones_own_gives_a_product() -> None:
    def apply(params: Any, carry: Any, obs: Any, first: Any) -> Any:
        parts = [Categorical(obs @ w) for w in params["heads"]]
        mean = obs @ params["mean"]
        return carry, Product((*parts, Gaussian(mean, jnp.zeros_like(mean))))

    params = {"heads": [jnp.ones((2, 3)), jnp.ones((2, 2))], "mean": jnp.ones((2, 1))}
    config = Config(
        env=Lock(of_parts()), policy=Network(lambda key: params, apply), num_envs=4, num_updates=2
    )
    assert isinstance(make_env(config.env, 1).action_space, ProductSpace)
    assert make_env(config.env, 1).action_space.parts[0] == Discrete(3)
    _, metrics = jax.jit(pg.make_train(config))(KEY)
    assert not metrics["nonfinite"].any()


class Sighted(Clock):
    """The observation of Clock in parts: a number, an index, a picture and a pair."""

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> Any:
        picture = jnp.full((4, 5, 2), state.time, jnp.uint8)
        pair = jnp.stack([state.place, -state.place])
        return {"place": state.place, "at": (state.time % 3, picture), "pair": pair}

    def observation_space(self, params: Any) -> Any:
        at = spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 255, (4, 5, 2), jnp.uint8)])
        return spaces.Dict(
            {
                "place": spaces.Box(0.0, 10.0, ()),
                "at": at,
                "pair": spaces.Box(-10.0, 10.0, (2,)),
            }
        )


class Telling(Sighted):
    """Its observation says which actions are legal: action 1, which moves on, at even times."""

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> Any:
        legal = jnp.stack([jnp.bool_(True), state.time % 2 == 0])
        return {**super().get_obs(state), "action_mask": legal}


def test_a_tree_of_observations_is_encoded_leaf_by_leaf() -> None:
    env = make_env(Sighted(), 3)
    assert env.obs_shape == {"place": (1,), "at": ((3,), (4, 5, 2)), "pair": (2,)}
    assert env.obs_size == 1 + 3 + 40 + 2
    obs = env.reset(KEY)[1]
    assert jax.tree.map(lambda x: x.shape[1:], obs) == env.obs_shape
    np.testing.assert_array_equal(obs["at"][0], np.eye(3)[[0] * 3])
    policy = make_policy(Config(preset=None, hidden_sizes=(8,)), env)
    params = policy.init(KEY)
    kernels = params["params"]["torso"]
    assert kernels["rest"]["Dense_0"]["kernel"].shape == (1 + 3 + 16 * 2 * 3 + 2, 8)
    traj = episodes(env, policy, params, KEY)
    assert traj.obs["at"][1].dtype == jnp.uint8
    np.testing.assert_array_equal(
        traj.obs["at"][1][..., 0, 0, 0][traj.valid], traj.time[traj.valid]
    )
    np.testing.assert_array_equal(traj.next_obs["pair"][:, :, 0], -traj.next_obs["pair"][:, :, 1])


def test_a_policy_that_is_loaded_sees_the_tree_and_its_mask(tmp_path: Path) -> None:
    config = Config(env=Telling(), num_envs=2, num_updates=1, hidden_sizes=(4,))
    done = execution.run(config, None, [0])
    folders.write_setup(tmp_path, config, config.hyperparams(), {"seed": 0, "seeds": 1})
    parameters.write_params(tmp_path, done.states.params, done.states.normaliser)
    policy = pg.load_policy(tmp_path, env=Telling())
    obs, _ = Telling().reset_env(KEY, Telling().default_params)
    closed = obs | {"action_mask": jnp.array([True, False])}
    assert policy(closed, KEY) == policy(closed) == 0
    many = jax.tree.map(lambda x: jnp.stack([x] * 5), closed)
    np.testing.assert_array_equal(policy(many, KEY), np.zeros(5))
    with pytest.raises(ValueError, match="an observation of the environment has shape"):
        policy(closed | {"pair": jnp.zeros(3)})


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "ppo", "num_steps": 8, "num_minibatches": 2, "normalise_observations": True},
        pytest.param(
            {"estimator": "gae", "num_steps": 8, "rnn": "gru", "scale_observations": True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["normalised", "scaled"],
)
def test_trees_of_observations_train(settings: dict[str, Any]) -> None:
    config = Config(env=Telling(), num_envs=4, num_updates=3, hidden_sizes=(8,), **settings)
    state, metrics = jax.jit(pg.make_train(config))(KEY)
    assert not metrics["nonfinite"].any()
    assert make_env(config.env, 1).masked
    if config.normalise_observations:
        moments = state.normaliser.obs["pair"]
        np.testing.assert_allclose(moments.mean.high[0], -moments.mean.high[1], rtol=1e-6)
        assert float(moments.number.high) == 4 * 8 * 3


def test_one_array_in_a_tree_is_that_array() -> None:
    """The same bits, but for the names of the parameters."""

    class Wrapped(Clock):
        def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> Any:
            return {"obs": super().get_obs(state)}

        def observation_space(self, params: Any) -> Any:
            return spaces.Dict({"obs": super().observation_space(params)})

    returns = []
    for env in (Clock(), Wrapped()):
        config = Config(
            env=env,
            num_envs=4,
            num_updates=1,
            hidden_sizes=(),
            scale_observations=True,
            preset=None,
        )
        made = make_env(env, 4)
        policy = make_policy(config, made)
        params = jax.tree.map(jnp.ones_like, policy.init(KEY))
        returns.append(episodes(made, policy, params, KEY).reward)
    np.testing.assert_array_equal(*returns)


class Changing(Clock):
    """step gives another tree than reset."""

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: Any) -> Any:
        _, state, *rest = super().step_env(key, state, action, params)
        return {"a": jnp.zeros(2), "b": jnp.zeros(1)}, state, *rest

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> Any:
        return {"a": jnp.zeros(2)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: make_env(Changing(), 2), "\\['b'\\] is none, and then float32 of shape"),
        (
            lambda: make_env(Sighted(), 2, observe=(0,)),
            "of a vector, and the observation is a dict",
        ),
    ],
)
def test_trees_that_do_not_fit_are_one_sentence(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
