"""Minibatches of single steps: drawn from all environments and times of a window, each step once in
every pass.
"""

import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from environments import Target
from small import adam_steps

from pg import train
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted
from pg.presets import preset

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {
    "collect": "windows",
    "num_envs": 4,
    "num_steps": 6,
    "num_updates": 1,
    "hidden_sizes": (4,),
}


def settings(**changes: Any) -> Config:
    return Config(**{"estimator": "ppo", **SIZES, **changes}, preset=None)


def minibatches_seen(config: Config) -> tuple[list[Any], Any]:
    """The (time, first observation, psi) of every minibatch of an update, and the batch that they
    are parts of.
    """
    parts: list[Any] = []
    whole: list[Any] = []

    def watched(policy: Any, critic: Any, h: Hyperparams) -> Estimator:
        made = ESTIMATORS["ppo"](policy, critic, h)

        def weigh(params: Params, state: Any, traj: Any) -> Any:
            batch, state = made.weigh(params, state, traj)
            jax.debug.callback(
                lambda *x: whole.append(x), batch.traj.obs, batch.psi, batch.traj.valid
            )
            return batch, state

        def grad(params: Params, batch: Weighted) -> Any:
            jax.debug.callback(
                lambda *x: parts.append(x), batch.traj.obs, batch.psi, batch.traj.valid
            )
            return made.grad(params, batch)

        return made._replace(weigh=weigh, grad=grad)

    jax.block_until_ready(jax.jit(train.make_train(config, estimator=watched))(KEY))
    jax.effects_barrier()
    return parts, whole[0]


def test_every_step_is_in_one_minibatch_of_a_pass() -> None:
    config = settings(minibatch_size=8, num_epochs=2)
    parts, whole = minibatches_seen(config)
    assert len(parts) == 6
    rows = np.asarray(whole[0]).reshape(24, -1)
    passes = []
    for epoch in (parts[:3], parts[3:]):
        seen = [np.asarray(obs) for obs, _, _ in epoch]
        assert all(obs.shape[:2] == (1, 8) for obs in seen)
        numbers = [[np.flatnonzero((rows == x).all(1))[0] for x in obs[0]] for obs in seen]
        np.testing.assert_array_equal(np.sort(np.ravel(numbers)), np.arange(24))
        # Steps of several environments and of several times, not whole columns.
        assert all(
            len({n % 4 for n in part}) > 1 and len({n // 4 for n in part}) > 1 for part in numbers
        )
        for part, (_, psi, valid) in zip(numbers, epoch, strict=True):
            np.testing.assert_array_equal(
                np.asarray(psi)[0], np.asarray(whole[1]).reshape(24)[part]
            )
            assert np.asarray(valid).all()
        passes.append(numbers)
    assert passes[0] != passes[1]  # shuffled anew


@pytest.mark.slow
def test_one_minibatch_of_all_steps_is_the_whole_batch() -> None:
    """A gradient is a mean over steps either way, and so is clipped at the same norm."""
    found = []
    for changes in ({}, {"minibatch_size": 24}):
        config = settings(optimizer="sgd", num_epochs=2, advantages="minibatch", **changes)
        found.append(
            jax.jit(train.make_train(config))(
                KEY, Hyperparams(learning_rate=0.1, max_grad_norm=0.5)
            )
        )
    (before, _), (after, _) = found
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        before.params,
        after.params,
    )
    np.testing.assert_allclose(found[0][1]["grad_norm"], found[1][1]["grad_norm"], rtol=1e-4)


def test_the_steps_of_an_update_are_counted() -> None:
    config = settings(minibatch_size=8, num_epochs=3, schedule="linear", num_updates=2)
    assert config.steps_per_update == 9
    assert settings(num_minibatches=2, num_epochs=3).steps_per_update == 6
    state, metrics = jax.jit(train.make_train(config))(KEY)
    assert adam_steps(state) == 18
    assert np.isfinite(metrics["grad_norm"]).all()
    assert Config.from_json(config.to_json()) == config


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"minibatch_size": 7}, r"minibatch_size must divide num_envs × num_steps = 4 × 6 = 24, got 7"),
    (
        {"minibatch_size": 48},
        r"minibatch_size must divide num_envs × num_steps = 4 × 6 = 24, got "
        r"48",
    ),
    ({"minibatch_size": 0}, "minibatch_size must be a whole number of at least 1, got 0"),
    (
        {"minibatch_size": 8, "num_minibatches": 2},
        "minibatch_size=8 and num_minibatches=2 are mutually exclusive",
    ),
    ({"minibatch_size": 8, "rnn": "gru"}, "shuffles steps and so needs rnn='none', got 'gru'"),
    (
        {"minibatch_size": 8, "collect": "episodes"},
        "counts steps and so needs collect='windows', got 'episodes'",
    ),
    (
        {"minibatch_size": 8, "collect": "episodes", "estimator": "grpo", "group_size": 2},
        "minibatch_size=8 counts steps and so needs collect='windows', got 'episodes'",
    ),
    (
        {"minibatch_size": 8, "estimator": "gae"},
        "estimator='gae' is on-policy: it takes one step on a batch",
    ),
    # One step less its mean is 0.
    (
        {"minibatch_size": 1, "advantages": "minibatch"},
        "advantages='minibatch' standardises over a single step",
    ),
    (
        {"num_envs": 1, "num_steps": 1, "advantages": "batch"},
        "advantages='batch' standardises over a single step",
    ),
    ({"num_envs": 1, "num_steps": 1, "advantages": "minibatch"}, "use advantages='raw'"),
    (
        {"num_steps": 1, "num_minibatches": 4, "advantages": "minibatch"},
        "standardises over a single step",
    ),
    (
        {"collect": "episodes", "num_envs": 1, "horizon": 1, "advantages": "batch"},
        "standardises over a single step",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_cut_or_standardised_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_one_step_alone_is_not_standardised_where_the_environment_has_no_more() -> None:
    """The time limit of a bandit is one step: what Config cannot know, the first look at the
    environment does.
    """
    sizes = {"num_envs": 2, "num_minibatches": 2, "advantages": "minibatch", "hidden_sizes": (4,)}
    for changes in (
        {"env": Target(continuous=False)},
        {"env_params": {"max_steps_in_episode": 1}, "horizon": 9},
    ):
        with pytest.raises(ValueError, match="standardises over a single step"):
            train.make_learner(Config(estimator="ppo", **sizes, **changes, preset=None))
    assert settings(num_envs=1, num_steps=2, advantages="batch")
    assert settings(num_envs=1, num_steps=1)  # not standardised


def test_a_preset_s_minibatches_give_way_to_the_size_that_is_given() -> None:
    config = preset("ppo", minibatch_size=64)[0]
    assert (config.minibatch_size, config.num_minibatches, config.steps_per_update) == (64, 1, 80)
    assert preset("ppo")[0].num_minibatches == 4
    with pytest.raises(ValueError, match="are mutually exclusive"):
        preset("ppo", minibatch_size=64, num_minibatches=4)


def test_the_command_line_takes_a_minibatch_size() -> None:
    code = (
        "from pg.commands import cli, job; "
        "print(cli.parse('train.py', '', job.Options)[0].steps_per_update)"
    )
    for flags, shown in ((["--minibatch-size", "64"], "80"), (["--minibatch-size=128"], "40")):
        command = [sys.executable, "-c", code, "--estimator", "ppo", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout.strip() == shown, done.stderr
    command = [sys.executable, "-c", code, "--estimator", "ppo", "--minibatch-size", "7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "minibatch_size must divide" in done.stderr
