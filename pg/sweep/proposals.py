"""Configurations that Optuna's samplers propose from the scores of earlier ones.

Each batch comes from a new study that receives all stored scores, so that a resumed search makes
the proposals of an uninterrupted one. This module does not import jax.
"""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pg.sweep.spaces import Range, Space, Table, is_whole


def check_installed() -> None:
    """Raises ValueError unless Optuna is installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ValueError(
            "method='tpe' needs optuna, which is not installed: pip install -e '.[optuna]'"
        )


def propose(
    spaces: Mapping[str, Space], told: Table, scores: Sequence[float], num: int, seed: Sequence[int]
) -> Table:
    """`num` configurations from the tree-structured Parzen estimator (Bergstra et al. 2011); the
    first ten of a search are drawn at random.

    Args:
        spaces: the space of each name.
        told: the values of the earlier configurations, by name.
        scores: their scores, larger is better; NaN: a seed diverged, which is worse than any score.
        num: number of configurations.
        seed: whole numbers, different for each batch of a search.
    """
    import optuna

    distributions = {name: _distribution(name, space) for name, space in spaces.items()}
    sampler = optuna.samplers.TPESampler(
        seed=int(np.random.SeedSequence(list(seed)).generate_state(1)[0]),
        constant_liar=True,  # a batch should not repeat one configuration
    )
    with _quiet(optuna):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for i, score in enumerate(scores):
            params = {name: _stored(space, told[name][i]) for name, space in spaces.items()}
            result: dict[str, Any] = {"value": float(score)}
            if not np.isfinite(score):
                result = {"state": optuna.trial.TrialState.PRUNED}
            trial = optuna.trial.create_trial(params=params, distributions=distributions, **result)
            study.add_trial(trial)
        asked = [study.ask(distributions).params for _ in range(num)]
    return {
        name: [_value(space, params[name]) for params in asked] for name, space in spaces.items()
    }


def corners(spaces: Mapping[str, Space]) -> Table:
    """Configurations that contain every listed value and both ends of every range, so that all can
    be checked before training.
    """
    ends = {name: _ends(name, space) for name, space in spaces.items()}
    longest = max(map(len, ends.values()), default=0)
    table = {}
    for name, values in ends.items():
        table[name] = [values[i % len(values)] for i in range(longest)]
    return table


def _ends(name: str, space: Space) -> Sequence[Any]:
    if not isinstance(space, Range):
        return list(space)
    ends = (space.low, space.high)
    return [round(end) for end in ends] if is_whole(name) else ends


def _distribution(name: str, space: Space) -> Any:
    from optuna import distributions

    if not isinstance(space, Range):
        return distributions.CategoricalDistribution(range(len(space)))  # positions in the list
    if is_whole(name):
        low, high = round(space.low), round(space.high)
        return distributions.IntDistribution(low, high, log=space.log)
    return distributions.FloatDistribution(space.low, space.high, log=space.log)


def _stored(space: Space, value: Any) -> Any:
    """A value as Optuna stores it: its position, if the space is a list."""
    return value if isinstance(space, Range) else list(space).index(value)


def _value(space: Space, stored: Any) -> Any:
    """The inverse of `_stored`."""
    return stored if isinstance(space, Range) else space[stored]


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Silences Optuna's message about each study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
