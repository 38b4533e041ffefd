"""The functions of the estimators in the table (`facts`), by their names, and those of files."""

import functools
import importlib
from collections.abc import Callable

from pg.config import Hyperparams
from pg.estimators.action_derivatives import q_prop_with
from pg.estimators.base import Estimator
from pg.estimators.facts import FACTS
from pg.estimators.names import is_selection, is_sequence, switches_of
from pg.estimators.q_prop_switches import is_q_prop, q_prop_of
from pg.estimators.sequences import sequence_estimator
from pg.inputs import check_name
from pg.networks import Network
from pg.settings import own_files
from pg.settings.parts import check_part

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


def _listed(name: str) -> Factory:
    module = importlib.import_module(f"pg.estimators.{FACTS[name].module}")
    function: Factory = getattr(module, name)
    return as_listed(function)


def _of_switches(name: str) -> Factory:
    """The function of a policy gradient over sequences, known by its name."""
    factory = sequence_estimator(**vars(switches_of(name)))
    factory.__name__ = name
    return factory


def _of_candidates(name: str) -> Factory:
    """The function of an estimator that is one of several, known by its name."""
    # which needs this module to find them
    selection = importlib.import_module("pg.estimators.selection")
    factory: Factory = selection.of_name(name)
    return factory


ESTIMATORS: dict[str, Factory] = {name: _listed(name) for name in FACTS}


def find(name: str) -> Factory:
    """The function of an estimator, by its name (`names`) or by `FILE.py:NAME`, which is executed.

    Raises ValueError for an unknown name, a file that fails, and a NAME that is not a function of
    policy, critic and hyperparameters.
    """
    if is_sequence(name):
        return _of_switches(name)
    if is_selection(name):
        return _of_candidates(name)
    if is_q_prop(name):
        return q_prop_with(**vars(q_prop_of(name)))
    if not own_files.is_reference(name):
        check_name("estimator", name, list(ESTIMATORS))
        return ESTIMATORS[name]
    factory: Factory = own_files.load(name, "estimator")
    check_part("estimator", factory)
    return factory
