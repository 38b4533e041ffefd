"""Rows of a benchmark: those of a suite, and those of custom parts beside them.

A custom estimator is a row of every environment, under its name. A custom policy, critic or
optimizer takes the place of that of every row, which is then another row, such as
`ppo+wide`: all results are in one folder, and in one report.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pg.benchmarks.suites import SUITES, TASKS, Row, Task
from pg.config import Config, Hyperparams, part_name
from pg.estimators import names as estimators
from pg.estimators.facts import FACTS, listed_name
from pg.estimators.variants import VARIANTS
from pg.inputs import check_name
from pg.presets import preset
from pg.settings import own_files
from pg.settings.environments import OF_BENCHMARK
from pg.settings.parts import check_choices, check_part
from pg.tuned import TUNED

__all__ = ["every_row", "select", "settings", "untuned_settings"]

LABELS = (*FACTS, *VARIANTS)
# A newcomer's first choices: without a critic, and with one of two kinds of steps.
FIRST = ("leave_one_out", "actor_critic", "ppo")
_IN_BENCHMARK = {name: short for short, name in OF_BENCHMARK.items()}
_NONE = "none of the tuned"  # a name that no environment has


def settings(task: Task, row: Row) -> tuple[Config, Hyperparams]:
    """The settings of a row."""
    env = task.name if task.env is None else task.env
    label = row.settings_of or row.label
    # a task without its own tuning has the settings of its environment
    tuned = task.name if task.name in TUNED else env
    config, hyperparams = preset(label, task=tuned, env=env, **task.changes)
    return replace(config, **row.parts), hyperparams


def untuned_settings(task: Task, row: Row) -> tuple[Config, Hyperparams]:
    """The settings of a row from a preset for an environment that it was not tuned for."""
    env = task.name if task.env is None else task.env
    config, hyperparams = preset(row.label, task=_NONE, env=env, **task.changes)
    # not the preset, which contains tuned settings where there are any
    return replace(config, preset=None), hyperparams


def every_row(
    suite: str, envs: Sequence[str] = (), labels: Sequence[str] = ()
) -> list[tuple[Task, Row]]:
    """A row for each environment of a suite and each label, whatever rows the suite has.

    Args:
        suite: name, of SUITES; its tasks that only have a smaller budget than others are left out.
        envs: names of environments of the suite, or their names elsewhere, such as
            `jumanji:Knapsack-v1`; none: all.
        labels: names of estimators or variants; none: `FIRST`.

    Raises:
        ValueError: a name is not in the suite, or is not a label.
    """
    check_name("suite", suite, SUITES)
    tasks = [task for task in SUITES[suite] if not task.is_shorter]
    names = [task.name for task in tasks]
    envs = _names_of_tasks(suite, envs)
    check_choices(f"environment of suite {suite!r}", envs, names)
    check_choices("label", labels, LABELS)
    return [
        (task, Row(label, 0))
        for task in tasks
        if not envs or task.name in envs
        for label in labels or FIRST
    ]


def select(
    suite: str,
    envs: Sequence[Any] = (),
    labels: Sequence[Any] = (),
    *,
    settings_of: str | None = None,
    policy: Any = None,
    critic: Any = None,
    optimizer: Any = None,
) -> list[tuple[Task, Row]]:
    """The rows of a suite, restricted to these environments and labels if any are named, and the
    custom rows.

    Args:
        suite: name, of SUITES.
        envs: names of environments of the suite, or their names elsewhere, such as
            `jumanji:Knapsack-v1`; and custom ones, objects or `FILE.py:CLASS`.
        labels: names of estimators or variants of the suite; and custom estimators, functions
            or `FILE.py:NAME`, and those of switches, which are rows of all the environments.
        settings_of: label whose settings, tuned for each environment, custom estimators use; None:
            those that their facts state.
        policy: a custom one that replaces that of all rows; a Network, a function or
            `FILE.py:NAME`. None: that of the settings.
        critic: like `policy`.
        optimizer: like `policy`, or the name of one.

    Raises:
        ValueError: a name is not in the suite (the message has the nearest valid ones), a part is
            invalid, two rows would have the same name, or nothing is left. No file is executed
            before all names are found.
    """
    given = {"policy": policy, "critic": critic, "optimizer": optimizer}
    parts = {field: part for field, part in given.items() if part is not None}
    labels = [_listed(label) for label in labels]
    check_name("suite", suite, SUITES)
    envs = _names_of_tasks(suite, envs)
    own_envs = [env for env in envs if _is_own(env)]
    named_envs = [env for env in envs if not _is_own(env)]
    own_labels = [label for label in labels if _is_own(label)]
    named_labels = [label for label in labels if not _is_own(label)]
    _check_names(suite, envs, labels, with_own_env=bool(own_envs))
    _check_settings_of(settings_of, own_labels)
    if own_envs and not labels:
        raise ValueError(
            "your own environment is in no suite and so has no rows: name labels to "
            "run on it, as in --label ppo leave_one_out"
        )
    for part in parts.values():
        if own_files.is_reference(part):
            own_files.read(part)  # which executes nothing
    loaded = {field: _loaded(field, part) for field, part in parts.items()}
    own_rows = [_own_row(_loaded("estimator", x), settings_of) for x in own_labels]
    chosen = []
    for task in _tasks(suite, named_envs, own_envs):
        rows = _named_rows(task, named_labels, any_label=not labels)
        most = max((row.steps for row in task.rows), default=0)
        rows += [row._replace(steps=most) for row in own_rows]
        chosen += [(task, _with_parts(row, loaded)) for row in rows]
    if not chosen:
        raise ValueError(
            f"suite {suite!r} has no row for both {', '.join(envs)} and {', '.join(labels)}"
        )
    return chosen


def _names_of_tasks(suite: str, envs: Iterable[Any]) -> list[Any]:
    """The environments, those of other libraries by their names in the benchmark.

    Raises:
        ValueError: an environment is in other suites alone.
    """
    named = [_IN_BENCHMARK.get(env, env) if isinstance(env, str) else env for env in envs]
    names = {name: {task.name for task in tasks} for name, tasks in SUITES.items()}
    of_benchmark = {env for env in named if isinstance(env, str) and env in TASKS}
    lacking = sorted(of_benchmark - names[suite])
    if not lacking:
        return named
    have_all = [name for name in SUITES if of_benchmark <= names[name]]
    if have_all:
        raise ValueError(
            f"environment {lacking[0]!r} is not in suite {suite!r}: write --suite {have_all[0]}"
        )
    of_each = (next(name for name in SUITES if env in names[name]) for env in lacking)
    theirs = ", ".join(f"{env!r} in {name!r}" for env, name in zip(lacking, of_each, strict=True))
    raise ValueError(
        f"no suite has all of these environments: {theirs}; give one command for each suite"
    )


def _is_own(part: Any) -> bool:
    """True for an object, a function, a file, or an estimator with switches, which has rows in no
    suite; False for a name of a suite's.
    """
    is_name = isinstance(part, str) and not own_files.is_reference(part)
    return not is_name or estimators.is_sequence(part)


def _listed(label: Any) -> Any:
    """The label; an estimator of this package is replaced by its name."""
    return listed_name(label) or estimators.canonical(label)


def _check_names(
    suite: str, envs: Iterable[Any], labels: Iterable[Any], *, with_own_env: bool
) -> None:
    """Raises ValueError for a name that is not in the suite, and for a custom part that has a
    name of the benchmark's; on a custom environment any label can be run.
    """
    tasks, of_suite = SUITES[suite], f"of suite {suite!r}"
    names = [task.name for task in tasks]
    check_choices(f"environment {of_suite}", envs, names, reserved=TASKS)
    of_switches = [x for x in labels if isinstance(x, str) and estimators.is_sequence(x)]
    if with_own_env:
        check_choices("label", labels, [*LABELS, *of_switches])
    else:
        known = dict.fromkeys(row.label for task in tasks for row in task.rows)
        check_choices(f"label {of_suite}", labels, [*known, *of_switches], reserved=LABELS)


def _check_settings_of(label: str | None, own_labels: Sequence[Any]) -> None:
    """Raises ValueError unless there are such settings, and an estimator that they are for."""
    if label is None:
        return
    check_name("settings_of", label, LABELS, "pg train --help lists the estimators")
    if not own_labels:
        raise ValueError(
            f"settings_of is for your own estimators: give one, as --estimator {own_files.FORM}"
        )


def _loaded(field: str, part: Any) -> Any:
    """The object of a part. Raises ValueError for an invalid one."""
    found = own_files.load(part, field) if own_files.is_reference(part) else part
    if field == "estimator" and isinstance(found, str):
        return found
    if field == "optimizer" and isinstance(found, str):
        return Config(optimizer=found, preset=None).optimizer  # type: ignore[arg-type]
    check_part(field, found)
    return found


def _tasks(suite: str, named: Sequence[str], own_envs: Sequence[Any]) -> list[Task]:
    """The tasks of these environments; without any, all of the suite."""
    tasks = [task for task in SUITES[suite] if task.name in named]
    if not named and not own_envs:
        tasks = list(SUITES[suite])
    return tasks + [_own_task(_loaded("env", env)) for env in own_envs]


def _own_task(env: Any) -> Task:
    """The task of a custom environment."""
    return Task(_word(env), (), floor=float("nan"), best=None, source="none", env=env)


def _own_row(estimator: Any, settings_of: str | None) -> Row:
    """The row of a custom estimator."""
    return Row(
        _word(estimator), 0, settings_of=settings_of or estimator, parts={"estimator": estimator}
    )


def _named_rows(task: Task, labels: Sequence[str], *, any_label: bool) -> list[Row]:
    """The rows of a task with these labels; of a custom environment, one for each label."""
    if not task.rows:
        return [Row(label, 0) for label in labels]
    return [row for row in task.rows if any_label or row.label in labels]


def _with_parts(row: Row, parts: dict[str, Any]) -> Row:
    """The row with a custom policy, critic or optimizer, under its own name."""
    if not parts:
        return row
    label = "+".join([row.label, *map(_word, parts.values())])
    settings_of = row.settings_of or row.label
    return Row(label, row.steps, settings_of=settings_of, parts={**row.parts, **parts})


def _word(part: Any) -> str:
    """The name of a part as a folder name."""
    return re.sub(r"[^\w.-]", "-", part_name(part))
