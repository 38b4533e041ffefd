"""Compare the directions of optimizers with variance reduction with the exact gradient, on a
tabular MDP at equal numbers of environment steps, and print their mean squared error.

The problem is a gridworld whose moves slip, with a tabular softmax policy, the gradient of
reward_to_go, and plain steps along the direction. A cell is the sum of ‖d - ∇J(θ)‖² along a run
divided by that of ‖∇J(θ)‖², its mean over seeds with a 95 % interval, and the exact return J at the
end. Each update has the same number of episodes; harpg's second batch has half of them. For igt, θ
is on its path; averaged is an exponential moving average of gradients, without transport.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pg.commands import cli
from pg.inputs import check_name

MARKS = ("<!-- update variance -->", "<!-- end of update variance -->")
METHODS = ("sgd", "averaged", "igt", "storm", "svrpg", "page_pg", "harpg")


@dataclasses.dataclass
class Options:
    """The runs of the table."""

    rates: tuple[float, ...] = (0.05, 0.2, 0.8)
    """Step sizes."""
    seeds: int = 20
    """Runs of each cell."""
    num_episodes: int = 16
    """Episodes of an update."""
    num_updates: int = 100
    """Updates of a run."""
    momentum: float = 0.9
    """Momentum of averaged, igt, storm and harpg; svrpg and page_pg restart every
    1 / (1 - momentum) updates.
    """
    only: tuple[str, ...] = METHODS
    """Rows of the table."""
    out: Path | None = None
    """File in which the table replaces the lines between `<!-- update variance -->` and
    `<!-- end of update variance -->`.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for a method that does not exist, or a number out of range."""
        for name in self.only:
            check_name("method", name, METHODS)
        if self.seeds < 2 or self.num_updates < 2:
            raise ValueError("seeds and num_updates must be at least 2")
        if self.num_episodes < 2 or self.num_episodes % 2:
            raise ValueError(f"num_episodes must be even, got {self.num_episodes}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")


def reductions(momentum: float) -> dict[str, Any]:
    """The transformation of each method before a plain step, except igt, which wraps it."""
    import optax

    from pg import optimizers
    from pg.optimizers import variance_reduction

    period = round(1 / (1 - momentum))
    return {
        "sgd": optax.identity(),
        "averaged": variance_reduction.averaged(momentum),
        "storm": optimizers.storm(momentum),
        "svrpg": optimizers.svrpg(period),
        "page_pg": optimizers.page_pg(1 / period),
        "harpg": optimizers.harpg(momentum),
    }


def errors(given: Options, name: str) -> tuple[Any, Any, Any]:
    """Σ ‖d - ∇J‖² and Σ ‖∇J‖² along each run, and J at its end, [rates, seeds] each."""
    import jax
    import jax.numpy as jnp
    import optax

    import pg
    from pg import envs, networks, optimizers
    from pg.exact import tabular
    from pg.train import training_keys

    mdp = tabular.gridworld(["S..#", ".#..", "...G", "H..#"], horizon=20, slip=0.1)
    config = pg.Config(
        env=mdp,
        estimator="reward_to_go",
        num_envs=given.num_episodes // (2 if name == "harpg" else 1),
        num_updates=given.num_updates,
        hidden_sizes=(),
        preset=None,
    )
    h = config.hyperparams(gamma=0.95, max_grad_norm=float("inf"))
    policy = networks.make_policy(config, envs.make_env(mdp, 1))
    states = jnp.eye(mdp.num_states)

    def exact_return(params: Any) -> Any:
        dist = policy.apply(params, (), states, jnp.zeros(mdp.num_states, bool))[1]
        return tabular.exact_return(mdp, dist.logits, h.gamma)

    def compared(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        """The unchanged direction, recording its squared error and the squared norm of ∇J."""
        exact = jax.grad(exact_return)(params.policy)
        error = jax.tree.map(jnp.add, updates.policy, exact)  # updates are those of the loss
        return updates, (optax.tree.norm(error, squared=True), optax.tree.norm(exact, squared=True))

    comparison = optax.GradientTransformationExtraArgs(
        lambda params: (jnp.zeros(()), jnp.zeros(())), compared
    )

    def optimizer(rate: Any) -> Any:
        step = optax.named_chain(("comparison", comparison), ("step", optax.sgd(rate)))
        if name == "igt":
            return optimizers.igt(step, given.momentum)
        return optax.chain(reductions(given.momentum)[name], step)

    def run(rate: Any, key: Any) -> tuple[Any, Any, Any]:
        learner = pg.make_learner(config, h._replace(learning_rate=rate), optimizer=optimizer)
        init_key, keys = training_keys(key, 0, given.num_updates)

        def one(state: Any, key: Any) -> tuple[Any, Any]:
            after = learner.step(state, key)[0]
            return after, optax.tree.get(after.opt_state, "comparison")

        end, (error, size) = jax.lax.scan(one, learner.init(init_key), keys)
        params = end.params.policy
        if name == "igt":
            params = optimizers.parameters_of_path(end.opt_state).policy
        return error.sum(), size.sum(), exact_return(params)

    keys = jax.vmap(jax.random.key)(jnp.arange(given.seeds))
    of_seeds = jax.vmap(run, in_axes=(None, 0))
    return jax.jit(jax.vmap(of_seeds, in_axes=(0, None)))(jnp.array(given.rates), keys)


def main() -> int:
    """Prints the table in Markdown. Returns the exit code, 0."""
    given = cli.options(Options, cli.docstring_of(__file__), None, None)
    cli.cache_compilations()
    import numpy as np

    from pg.reports import statistics, tables

    def cells(name: str) -> Iterator[str]:
        for error, size, value in zip(*map(np.asarray, errors(given, name)), strict=True):
            of_all = statistics.bootstrap_interval(error / size, statistics.mean)
            shown, low, high = (f"{x:.2f}" if x < 100 else f"{x:.0f}" for x in of_all)
            yield f"{shown} [{low}, {high}] · {value.mean():.2f}"

    columns = [f"steps of {rate:g}" for rate in given.rates]
    text = tables.printed(columns, ((name, list(cells(name))) for name in given.only))
    if given.out is not None:
        tables.insert(given.out, text, MARKS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
