"""The functions of the estimators in the table (`facts`), by their names."""

import functools
import importlib
from collections.abc import Callable

from pg.config import Hyperparams
from pg.estimators.base import Estimator
from pg.estimators.facts import FACTS
from pg.networks import Network

Factory = Callable[[Network, Network, Hyperparams], Estimator]


def as_listed(factory: Factory) -> Factory:
    """The factory; if it has a row in the table, its estimators accept what the row says."""
    facts = FACTS.get(getattr(factory, "__name__", ""))
    if facts is None or factory.__module__ != f"pg.estimators.{facts.module}":
        return factory

    @functools.wraps(factory)
    def make(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return factory(policy, critic, h)._replace(accepts=facts.collect)

    return make


def _find(name: str) -> Factory:
    module = importlib.import_module(f"pg.estimators.{FACTS[name].module}")
    function: Factory = getattr(module, name)
    return as_listed(function)


ESTIMATORS: dict[str, Factory] = {name: _find(name) for name in FACTS}
