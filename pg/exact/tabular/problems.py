"""Ready-made tabular problems."""

from collections.abc import Sequence

import numpy as np

from pg.envs.sequences import Sequences, all_sequences
from pg.exact.tabular.mdp import TabularMDP


def garnet(
    seed: int, num_states: int, num_actions: int, branching: int, horizon: int, ends: int = 1
) -> TabularMDP:
    """A random MDP, with rewards N(0, 1) (Archibald, McKinnon & Thomas 1995).

    Args:
        seed: of the generator.
        num_states: S.
        num_actions: A.
        branching: the successors of each (s, a).
        horizon: H.
        ends: the last `ends` states are terminal.
    """
    g = np.random.default_rng(seed)
    transition = np.zeros((num_states, num_actions, num_states))
    for s in range(num_states):
        for a in range(num_actions):
            successors = g.choice(num_states, size=branching, replace=False)
            transition[s, a, successors] = g.dirichlet(np.ones(branching))
    terminal = np.arange(num_states) >= num_states - ends
    initial = np.where(terminal, 0.0, g.dirichlet(np.ones(num_states)))
    reward = g.normal(size=(num_states, num_actions, num_states))
    return TabularMDP(transition, reward, initial / initial.sum(), terminal, horizon)


def chain(length: int, horizon: int, slip: float = 0.1) -> TabularMDP:
    """States in a row; the right end gives reward 1 and ends the episode.

    Args:
        length: S.
        horizon: H.
        slip: the probability that action 1 steps left instead of right, and 0 right instead of
            left.
    """
    transition = np.zeros((length, 2, length))
    for s in range(length):
        left = max(s - 1, 0)
        right = min(s + 1, length - 1)
        for action, (intended, other) in enumerate([(left, right), (right, left)]):
            transition[s, action, intended] += 1 - slip
            transition[s, action, other] += slip
    reward = np.zeros((length, 2, length))
    reward[: length - 1, :, length - 1] = 1.0
    initial = np.eye(length)[0]
    terminal = np.arange(length) == length - 1
    return TabularMDP(transition, reward, initial, terminal, horizon)


def gridworld(rows: Sequence[str], horizon: int, slip: float = 0.0) -> TabularMDP:
    """A grid with the moves up, right, down, left.

    Args:
        rows: the map, of S (start), . (free), # (wall), G (goal: +1, ends), H (hole: -1, ends).
        horizon: H.
        slip: the probability that the move is one of the four at random.
    """
    cells: dict[tuple[int, int], str] = {}
    for y, row in enumerate(rows):
        for x, kind in enumerate(row):
            if kind != "#":
                cells[y, x] = kind
    states = {cell: s for s, cell in enumerate(cells)}
    kinds = np.array(list(cells.values()))
    moves = np.zeros((len(cells), 4, len(cells)))
    for (y, x), s in states.items():
        for action, (dy, dx) in enumerate([(-1, 0), (0, 1), (1, 0), (0, -1)]):
            successor = states.get((y + dy, x + dx), s)
            moves[s, action, successor] = 1.0
    transition = (1 - slip) * moves + slip * moves.mean(1, keepdims=True)
    is_start = kinds == "S"
    of_entered = np.select([kinds == "G", kinds == "H"], [1.0, -1.0], 0.0)
    reward = np.broadcast_to(of_entered, transition.shape)
    terminal = np.isin(kinds, ["G", "H"])
    return TabularMDP(transition, reward, is_start / is_start.sum(), terminal, horizon)


def bandit(means: Sequence[float]) -> TabularMDP:
    """One step, k arms with deterministic rewards."""
    k = len(means)
    transition = np.broadcast_to(np.array([0.0, 1.0]), (2, k, 2))
    reward = np.stack([np.asarray(means), np.zeros(k)])
    return TabularMDP(transition, reward, [1.0, 0.0], [False, True], horizon=1)


def pessimal() -> TabularMDP:
    """Two steps and one shared logit; at γ = 1/2 dropping γᵗ climbs to the worst policy, for J_γ
    and J₁ alike.

    Action 1 leads to the state that costs 4, and itself gives 3 at the second step: with p = π(1),
    J_γ = -γ p, while the direction without γᵗ is p (1 - p) (3 - 4 γ) > 0. In the spirit of Nota &
    Thomas 2020 (1906.07073), section 5.
    """
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = 1.0
    transition[0, 1, 2] = 1.0
    transition[1, :, 1] = 1.0
    transition[2, :, 2] = 1.0
    reward = np.array([[0.0, 0.0], [0.0, 3.0], [-4.0, -1.0]])
    initial = [1.0, 0.0, 0.0]
    one_logit = np.ones((3, 1))
    return TabularMDP(transition, reward, initial, np.zeros(3, bool), horizon=2, features=one_logit)


def cancelling() -> TabularMDP:
    """Two steps with rewards -1 and then about +1: the return is small, the reward to go is not.

    Here the reward-to-go estimator has *more* variance than the total return: the rewards that it
    drops are anti-correlated with those that it uses.
    """
    transition = np.zeros((2, 2, 2))
    transition[:, :, 1] = 1.0
    reward = [[-1.0, -0.9], [1.0, 1.1]]
    return TabularMDP(transition, reward, [1.0, 0.0], [False, False], horizon=2)


def references() -> dict[str, TabularMDP]:
    """Three problems to measure estimators on: a random one, a corridor with a goal, and rewards
    that cancel.
    """
    return {
        "random": garnet(0, num_states=3, num_actions=2, branching=2, horizon=3),
        "chain": chain(3, horizon=3),
        "cancelling": cancelling(),
    }


def sequence_problems() -> dict[str, Sequences]:
    """Three sequence problems to measure estimators on, which `prefix_tree` makes into tables.

    equal_lengths: two prompts, and every sequence has three tokens. unequal_lengths: two prompts,
    and sequences of one token to seven. agreeing_groups: under the uniform policy a completion
    has reward 1 with probability 8/9 after the first prompt, 1/9 after the second and 5/9 after the
    third, and else 0; a group of the first two mostly agrees.
    """
    return {
        "equal_lengths": _random_rewards(0, num_tokens=2, max_length=3, end_token=None),
        "unequal_lengths": _random_rewards(1, num_tokens=2, max_length=7, end_token=1),
        "agreeing_groups": _agreeing_groups(),
    }


def _random_rewards(
    seed: int, num_tokens: int, max_length: int, end_token: int | None
) -> Sequences:
    """Two prompts, and a reward N(0, 1) of every sequence."""
    sequences = all_sequences(num_tokens, max_length, end_token)
    rewards = np.random.default_rng(seed).normal(size=(2, len(sequences)))
    return Sequences(
        num_tokens=num_tokens,
        max_length=max_length,
        end_token=end_token,
        reward=rewards,
        prompts=2,
        observation="table",
    )


def _agreeing_groups() -> Sequences:
    """Three prompts: one nearly solved, one nearly unsolved, one in between."""
    sequences = all_sequences(num_tokens=3, max_length=2, end_token=2)
    rewards = np.zeros((3, len(sequences)))
    rewards[0] = [y != (1, 0) for y in sequences]
    rewards[1] = [y == (0, 1) for y in sequences]
    rewards[2] = [y[0] == 1 or y in ((0, 0), (0, 2)) for y in sequences]
    return Sequences(
        num_tokens=3,
        max_length=2,
        end_token=2,
        reward=rewards,
        prompts=3,
        observation="table",
    )
