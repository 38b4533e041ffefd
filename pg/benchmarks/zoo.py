"""The zoo's policies, made from the folder of a benchmark: the best seed of each row, evaluated on
other episodes.

The seed with the highest score in the row's final evaluation is taken. That score is biased upwards
by the selection, and so the zoo's is from other episodes.
"""

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg.benchmarks import learning
from pg.benchmarks.learning import Result
from pg.benchmarks.suites import TASKS, row_of
from pg.reports import statistics
from pg.runs import files, folders, parameters, zoo
from pg.runs.zoo import Entry

# Rows to include; of the many estimators that learn Catch equally well, a few are enough.
LABELS = (
    "reinforce",
    "leave_one_out",
    "time_baseline",
    "standardised",
    "state_value",
    "actor_critic",
    "ppo",
    "natural",
    "trpo",
    "recurrent_ppo",
    "state_std_ppo",
)
LARGEST = 300_000  # bytes of the parameters of a policy
EPISODES = 1000
SEED = 10_000  # seed of the evaluation; those of training and of the search of settings are smaller


class Kept(NamedTuple):
    """The seed of a row whose policy is included."""

    env: str
    label: str
    seed: int
    env_steps: int
    folder: Path  # of the program that trained it, of several seeds

    @property
    def name(self) -> str:
        """The name of the policy in the zoo."""
        return f"{self.env}/{self.label}"


def selected(out: Path, labels: Iterable[str] = LABELS) -> list[Kept]:
    """The rows of a benchmark that have a policy in the zoo, and the seed of each.

    A row is left out if it misses its bar; and, without a bar, if another row of its environment is
    better, or if it is not above a random policy.
    """
    rows: dict[str, dict[str, list[Result]]] = {}
    for line in learning.collect(out):
        rows.setdefault(line.env, {}).setdefault(line.label, []).append(line)
    kept = []
    for env, by_label in rows.items():
        best = max(_score(env, lines) for lines in by_label.values())
        for label, lines in by_label.items():
            if label in labels and _is_good(env, lines, best):
                line = max(lines, key=operator.attrgetter(_actions(env, label)))
                folder = _folder(out, line)
                kept.append(Kept(env, label, line.seed, line.env_steps, folder))
    return kept


def make(kept: Kept, into: Path = zoo.FOLDER, *, episodes: int = EPISODES) -> Entry | None:
    """Writes a policy of the zoo and evaluates it.

    Returns:
        Its scores; None if its parameters have more than `LARGEST` bytes, and nothing is written.
    """
    import safetensors.numpy

    from pg.runs.acting import load_policy

    policy = load_policy(kept.folder, seed=kept.seed)
    arrays = _of_policy(kept)
    if sum(x.nbytes for x in arrays.values()) > LARGEST:
        return None
    folder = into / kept.env / kept.label
    files.make_folder(folder, within=into)
    zoo.remove(kept.name, into)
    options = {"seed": kept.seed, "seeds": 1, "command": "benchmark.py"}
    setup = folders.read_stored(kept.folder)
    folders.write_json(folder / "config.json", {**setup, "options": options})
    data = safetensors.numpy.save(arrays)
    files.replace(folder / "params.safetensors", operator.methodcaller("write", data))
    greedy = _actions(kept.env, kept.label) == "greedy"
    returns = evaluated(policy, SEED, episodes, greedy=greedy)
    error = float(statistics.standard_error(returns))
    (line,) = (x for x in learning.stored_cells(kept.folder.parent) if x.path == kept.folder)
    versions = dict(zip(("pg", *learning.VERSIONED), line.results[0][6:], strict=True))
    of_training = (kept.seed, kept.env_steps, versions)
    entry = Entry(kept.name, float(returns.mean()), error, episodes, greedy, SEED, *of_training)
    zoo.write_entry(entry, into)
    return entry


def evaluated(policy: Any, seed: int, episodes: int, *, greedy: bool) -> np.ndarray:
    """Returns of episodes of a policy as `pg.load_policy` returns it, [episodes]."""
    import jax

    from pg.runs import host_states, interrupts

    with host_states.closing([policy.config]), interrupts.held("the evaluation"):
        found = policy.evaluate(jax.random.key(seed), episodes, greedy=greedy)
        return np.asarray(found.returns, np.float64)


def _of_policy(kept: Kept) -> dict[str, np.ndarray]:
    """The arrays of the policy and of the running statistics, with a leading axis of one
    seed."""
    import jax

    from pg import envs, networks
    from pg.runs import acting

    config, h = folders.read_setup(kept.folder)
    env = envs.configured(config, 1, h.env_params)
    like = acting.acting_shapes(config, env, networks.make_policy(config, env))
    policy, normaliser = parameters.read_policy(kept.folder, *like)
    index = kept.seed - folders.read_options(kept.folder)["seed"]
    of_seed = jax.tree.map(lambda x: x[index : index + 1], (policy, normaliser))
    return parameters.leaves({"policy": of_seed[0]}, of_seed[1])


def _actions(env: str, label: str) -> str:
    """The field of a result that judges a row."""
    row = row_of(env, label)
    return row.bar.actions if row and row.bar else "greedy"


def _score(env: str, lines: list[Result]) -> float:
    """The mean score of a row; -∞ if a seed diverged."""
    scores = np.array([getattr(line, _actions(env, lines[0].label)) for line in lines])
    return float(scores.mean()) if np.isfinite(scores).all() else -np.inf


def _is_good(env: str, lines: list[Result], best: float) -> bool:
    """True for a row that reaches its bar or, without one, is the best of its environment."""
    row = row_of(env, lines[0].label)
    if row is None or row.bar is None:
        floor = TASKS[env].floor if env in TASKS else -np.inf
        return floor < _score(env, lines) == best
    return row.bar.is_reached([getattr(line, row.bar.actions) for line in lines])


def _folder(out: Path, line: Result) -> Path:
    """The folder of the program that ran the seed of a line."""
    cells = learning.stored_cells(out / line.env / line.label)
    (found,) = (cell.path for cell in cells if line.seed in cell.seeds)
    return found
