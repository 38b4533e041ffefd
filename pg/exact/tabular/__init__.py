"""Tabular MDPs: a gymnax environment whose J(θ), gradient and moments are known exactly.

Everything is a differentiable function of logits, [S, A] or, for a time-dependent policy, [H, S,
A], so that a Hessian or the gradient with respect to a network's parameters is one more `jax`
transformation away. A terminal state ends the episode when it is entered: it gives no reward, and
the logits of its row have no effect.
"""

from pg.exact.tabular.branch_returns import (
    branch_returns,
)
from pg.exact.tabular.exact import (
    advantage,
    average_reward,
    average_values,
    discounted_return,
    discounted_values,
    discounted_visitation,
    exact_gradient,
    exact_hessian,
    exact_return,
    gpomdp_direction,
    greedy_logits,
    stationary,
    undiscounted_direction,
    values,
    visitation,
)
from pg.exact.tabular.extraction import (
    frozen_lake,
    tabulate,
)
from pg.exact.tabular.hindsight import (
    hindsight_of_rewards,
    hindsight_of_states,
    paid_rewards,
    table_coefficients,
)
from pg.exact.tabular.mdp import (
    TabularMDP,
    register,
)
from pg.exact.tabular.mirror_descent import (
    euclidean_mirror_step,
    kl_mirror_step,
    project_on_simplex,
    step_towards_greedy,
)
from pg.exact.tabular.moments import (
    reward_to_go_moments,
    total_return_moments,
)
from pg.exact.tabular.networks import (
    table,
    table_critic,
    table_hindsight,
    table_policy,
)
from pg.exact.tabular.parametrisations import (
    escort,
    log_barrier_return,
    parametrised_gradient,
)
from pg.exact.tabular.prefix_tree import (
    prefix_tree,
)
from pg.exact.tabular.problems import (
    bandit,
    cancelling,
    chain,
    garnet,
    gridworld,
    pessimal,
    references,
    sequence_problems,
)
from pg.exact.tabular.trajectories import (
    enumerate_trajectories,
    initial_states,
    num_trajectories,
    visited_states,
)
from pg.exact.tabular.transforms import (
    restarting,
    stationary_window,
    with_reference,
    with_time_in_state,
)

__all__ = [
    "TabularMDP",
    "advantage",
    "average_reward",
    "average_values",
    "bandit",
    "branch_returns",
    "cancelling",
    "chain",
    "discounted_return",
    "discounted_values",
    "discounted_visitation",
    "enumerate_trajectories",
    "escort",
    "euclidean_mirror_step",
    "exact_gradient",
    "exact_hessian",
    "exact_return",
    "frozen_lake",
    "garnet",
    "gpomdp_direction",
    "greedy_logits",
    "gridworld",
    "hindsight_of_rewards",
    "hindsight_of_states",
    "initial_states",
    "kl_mirror_step",
    "log_barrier_return",
    "num_trajectories",
    "paid_rewards",
    "parametrised_gradient",
    "pessimal",
    "prefix_tree",
    "project_on_simplex",
    "references",
    "register",
    "restarting",
    "reward_to_go_moments",
    "sequence_problems",
    "stationary",
    "stationary_window",
    "step_towards_greedy",
    "table",
    "table_coefficients",
    "table_critic",
    "table_hindsight",
    "table_policy",
    "tabulate",
    "total_return_moments",
    "undiscounted_direction",
    "values",
    "visitation",
    "visited_states",
    "with_reference",
    "with_time_in_state",
]
