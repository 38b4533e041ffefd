"""Searches: a sequence of sweeps, whose configurations are chosen by the scores so far.

OUT/ENV/ESTIMATOR/search-<digest of the specification>/
    search.json                 settings, rule, configurations or spaces, seeds, versions
    rung-0/, rung-1/, ...       successive halving: a sweep of the survivors (`rungs`)
    batch-000/, batch-001/ ...  Optuna: a sweep of the proposals (`proposals`)
    configurations.csv  summary.json  best/     as in a sweep

The next sweep follows from the tables of the earlier ones, so that a search resumes from its files
alone.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pg import numerals
from pg.commands import cli
from pg.commands.cli import Checkpointing
from pg.config import Config
from pg.fast import devices
from pg.fast.devices import Layout
from pg.runs import files, folders, host_states, sweeps
from pg.sweep import driver, proposals, report, rungs, spaces
from pg.sweep import spec as specs
from pg.sweep.report import Ranked
from pg.sweep.rungs import Earlier, Rung
from pg.sweep.spaces import Space, Table
from pg.sweep.spec import SweepSpec


@dataclasses.dataclass(frozen=True)
class Halving:
    """Successive halving of the configurations of a sweep."""

    eta: int = 3  # one configuration in eta survives a rung
    rungs: int | None = None  # None: see `rungs.divisors`

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {"method": "halving", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Tpe:
    """Configurations that Optuna's tree-structured Parzen estimator proposes."""

    spaces: Mapping[str, Space]
    trials: int = 16  # number of configurations
    batch: int = 8  # number that is proposed and trained at a time
    seed: int = 0
    total_steps: int | None = None  # environment steps of a run, see `spaces.lasting`

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        named = {
            name: [specs.label(name, value) for value in space]
            for name, space in self.spaces.items()
        }
        ranges = [name for name, space in self.spaces.items() if isinstance(space, spaces.Range)]
        own = {name: getattr(self, name) for name in ("trials", "batch", "seed", "total_steps")}
        return {"method": "tpe", "spaces": named, "ranges": ranges, **own}


@dataclasses.dataclass(frozen=True)
class Search:
    """A sweep, which has the settings, seeds and evaluation, and the rule that chooses its
    configurations; with `Halving` the sweep's own are those of the first rung.
    """

    sweep: SweepSpec
    rule: Halving | Tpe

    def folder(self, out: Path, *, allow_changed_code: bool = False) -> Path:
        """The folder of the search below `out`, see `SweepSpec.folder`."""
        own = self.to_json()
        return self.sweep.folder(out, own, allow_changed_code=allow_changed_code)

    def unfinished_of_other_code(self, out: Path) -> Path | None:
        """See `SweepSpec.unfinished_of_other_code`."""
        return self.sweep.unfinished_of_other_code(out, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The rule; for `Tpe` also the presets and the digests of custom parts it may propose."""
        data = self.rule.to_json()
        if isinstance(self.rule, Tpe):
            whole = _widest(self)
            data["parts"] = whole.to_json().get("parts", [])
            if whole.presets:
                data["presets"] = whole.presets
        return data

    def divisors(self) -> list[int]:
        """The divisor of each rung, see `rungs.divisors`; [1] for `Tpe`."""
        if isinstance(self.rule, Tpe):
            return [1]
        shortest = min(config.num_updates for config in self.sweep.configs())
        number = self.sweep.num_configurations
        return rungs.divisors(number, shortest, self.rule.eta, self.rule.rungs)


class Round(NamedTuple):
    """A finished sweep of a search."""

    spec: SweepSpec
    folder: Path
    numbers: list[int]  # the numbers of its configurations in the search
    ranked: list[Ranked]  # by their numbers in the sweep; [] in processes that do not write
    updates: list[tuple[int, int]]  # of each configuration: done before this sweep, and after it


class Budget(NamedTuple):
    """The arguments of `driver.run` that all sweeps of a search share."""

    layout: Layout
    checkpointing: Checkpointing
    width: int | None  # vmapped runs on each device
    limit: int | None  # bytes of memory that this process may use; None: the free memory
    allow_changed_code: bool = False


def run_search(search: Search, folder: Path, budget: Budget, *, fresh: int) -> int:
    """Trains the runs that are missing in the folder, ranks the configurations, and trains the best
    one on fresh seeds.

    Args:
        search: the specification.
        folder: the folder of the search.
        budget: devices, checkpoints and memory.
        fresh: number of fresh seeds; 0: none.

    Returns:
        The exit code, see `driver.run_sweep`.

    Raises:
        ValueError: there are more rungs than updates allow, Optuna in a job of several processes,
            or as `driver.run_sweep`.
    """
    check(search, budget.layout)
    with contextlib.ExitStack() as stack:
        if devices.is_first():
            _make(folder)
            stack.enter_context(folders.locked(folder))
            _write_setup(search, folder, budget)
        stack.enter_context(host_states.closing(_configs(search)))
        is_halving = isinstance(search.rule, Halving)
        rounds = (_halve if is_halving else _propose)(search, folder, budget)
        finite = _finish(search, folder, rounds, budget, fresh)
        driver.discard_checkpoints(folder)
    return 0 if finite else cli.NOT_FINITE


def check(search: Search, layout: Layout) -> None:
    """Raises ValueError for every mistake that can be found before the first update."""
    search.divisors()
    if isinstance(search.rule, Tpe):
        proposals.check_installed()
        if jax.process_count() > 1:
            raise ValueError("method must be another than tpe in a job of several processes")
    specs.check(_widest(search), layout)


def _widest(search: Search) -> SweepSpec:
    """A sweep with all static settings that a search may try."""
    if isinstance(search.rule, Halving):
        return search.sweep
    table = _lasting(search, proposals.corners(search.rule.spaces))
    return dataclasses.replace(search.sweep, table=table)


def _configs(search: Search) -> list[Config]:
    """The static settings that a search may try."""
    return _widest(search).configs()


def _make(folder: Path) -> None:
    """Makes the folder unless it exists. Raises ValueError if it cannot be made."""
    try:
        files.make_folder(folder / "checkpoints", within=folder)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None


def _write_setup(search: Search, folder: Path, budget: Budget) -> None:
    """Writes search.json if the search is new, or the code of custom parts has changed; in that
    case the versions stay those of the start.

    Raises ValueError if the code has changed, and may not.
    """
    files.remove_leftovers(folder)
    path = folder / "search.json"
    about = {
        **search.sweep.to_json(),
        "search": search.to_json(),
        "settings_of": search.sweep.settings_of,
    }
    configs = _configs(search)
    if not path.exists():
        about["versions"] = folders.environment(budget.layout) | host_states.about(configs)
        folders.write_json(path, about)
        return
    stored = sweeps.read_stored(folder, path.name)
    parts, of_search = stored.get("parts"), stored.get("search", {}).get("parts")
    current = folders.jsonable([about.get("parts"), about["search"].get("parts")])
    if [parts, of_search] == current:
        return
    recorded = [*(parts or []), *(of_search or [])]
    driver.check_code(configs, folder, recorded, allow_changed_code=budget.allow_changed_code)
    folders.write_json(path, {**stored, **about})


def _halve(search: Search, folder: Path, budget: Budget) -> list[Round]:
    """Trains the rungs of successive halving."""
    assert isinstance(search.rule, Halving)
    spec, numbers = search.sweep, list(range(search.sweep.num_configurations))
    divisors = search.divisors()
    what = driver.tried(spec.num_configurations, len(spec.seeds))
    driver.say(f"{spec.title}: {what}, {numerals.counted(len(divisors), 'rung')}; {folder}")
    driver.say_presets(spec)
    driver.say_promises(_configs(search))
    driver.say_unused(spec, spec.table)
    rounds: list[Round] = []
    earlier = None
    before = [0] * len(numbers)  # updates done
    for k, divisor in enumerate(divisors):
        rung, place = Rung(divisor, earlier), folder / f"rung-{k}"
        configs = [config for config, group in spec.programs() for _ in group]
        after = [rung.updates(config) for config in configs]
        whole = numerals.counted(max(config.num_updates for config in configs), "update")
        configurations = numerals.counted(spec.num_configurations, "configuration")
        driver.say(f"rung {k}: {configurations}, {max(after)} of {whole}")
        ranked, budget = _swept(spec, place, budget, fixed=bool(rounds), rung=rung)
        rounds.append(Round(spec, place, numbers, ranked, list(zip(before, after, strict=True))))
        if earlier:
            driver.discard_checkpoints(earlier.folder)
        chosen = _chosen(ranked, spec.num_configurations, search.rule.eta)
        if rung.is_last or not chosen:
            driver.discard_checkpoints(place)
            break
        earlier = Earlier(spec, place, chosen, after)
        spec = dataclasses.replace(spec, table=_rows(spec.table, chosen))
        numbers, before = [numbers[g] for g in chosen], [after[g] for g in chosen]
    return rounds


def _chosen(ranked: list[Ranked], num_configurations: int, eta: int) -> list[int]:
    """The surviving configurations; all processes follow the first one."""
    finite = [r.configuration for r in ranked if len(r.scores)]
    chosen = rungs.survivors(finite, num_configurations, eta)
    return [g for g in range(num_configurations) if devices.agreed(int(g in chosen))]


def _propose(search: Search, folder: Path, budget: Budget) -> list[Round]:
    """Trains the batches that Optuna proposes."""
    assert isinstance(search.rule, Tpe)
    rule, base = search.rule, search.sweep
    what = driver.tried(rule.trials, len(base.seeds))
    driver.say(f"{base.title}: {what}, {rule.batch} at a time; {folder}")
    driver.say_promises(_configs(search))
    driver.say_unused(base, rule.spaces)
    rounds: list[Round] = []
    for k, first in enumerate(range(0, rule.trials, rule.batch)):
        place, num = folder / f"batch-{k:03}", min(rule.batch, rule.trials - first)
        spec = dataclasses.replace(base, table=_batch(search, place, rounds, num, k))
        driver.say(f"batch {k}: configurations {first} to {first + num - 1} of {rule.trials}")
        ranked, budget = _swept(spec, place, budget, fixed=bool(rounds))
        updates = [(0, config.num_updates) for config, group in spec.programs() for _ in group]
        rounds.append(Round(spec, place, list(range(first, first + num)), ranked, updates))
    return rounds


def _batch(search: Search, place: Path, rounds: list[Round], num: int, k: int) -> Table:
    """The configurations of a batch: the stored ones if it was started, else new proposals."""
    assert isinstance(search.rule, Tpe)
    if (place / "sweep.json").exists():
        table: Table = {}
        for name, column in sweeps.read_stored(place)["table"].items():
            table[name] = [_unlabelled(name, x, search.rule.spaces.get(name)) for x in column]
        return table
    told: Table = {name: [] for name in search.rule.spaces}
    scores: list[float] = []
    for done in rounds:
        for name in told:
            told[name] += done.spec.table[name]
        by_number = {r.configuration: r for r in done.ranked}
        for g in range(done.spec.num_configurations):
            scores.append(np.nan if by_number[g].diverged else by_number[g].mean.value)
    seed = (search.rule.seed, k)
    return _lasting(search, proposals.propose(search.rule.spaces, told, scores, num, seed))


def _unlabelled(name: str, stored: Any, space: Space | None) -> Any:
    """The value that a stored label stands for; for a custom part its FILE.py:NAME."""
    if space is None or isinstance(space, spaces.Range):
        return stored
    labels = [folders.jsonable(specs.label(name, value)) for value in space]
    return next((x for x, label in zip(space, labels, strict=True) if label == stored), stored)


def _lasting(search: Search, table: Table) -> Table:
    steps = search.rule.total_steps if isinstance(search.rule, Tpe) else None
    if steps is None:
        return table
    spec = search.sweep
    presets = spaces.presets(table, spec.config, spec.given, spec.settings_of)
    return spaces.lasting(table, spec.config, steps, presets)


def _swept(
    spec: SweepSpec, place: Path, budget: Budget, *, fixed: bool, rung: Rung = rungs.WHOLE
) -> tuple[list[Ranked], Budget]:
    """Runs and ranks one sweep. All have the width of the first one, since bits depend on it."""
    width = driver.run(
        spec,
        place,
        budget.layout,
        budget.checkpointing,
        width=budget.width,
        fixed=fixed,
        limit=budget.limit,
        rung=rung,
        allow_changed_code=budget.allow_changed_code,
    )
    ranked = report.rank(spec, sweeps.read_runs(place)) if devices.is_first() else []
    if ranked:
        report.write(spec, place, ranked)
    return ranked, budget._replace(width=width)


def _finish(
    search: Search, folder: Path, rounds: list[Round], budget: Budget, fresh_seeds: int
) -> bool:
    """Ranks the configurations of all sweeps, and trains the best one on fresh seeds. Returns the
    result of `driver.conclude`.
    """
    is_halving = isinstance(search.rule, Halving)
    ranked = standing(rounds, "rung" if is_halving else "batch")
    # the last round of a configuration, and its number in that round
    where = {number: (i, g) for i, r in enumerate(rounds) for g, number in enumerate(r.numbers)}
    best_round, best = 0, driver.NO_BEST
    if report.any_finite(ranked):
        best_round, best = where[ranked[0].configuration]
    best_round, best = devices.agreed(best_round), devices.agreed(best)

    def metrics_of(r: Ranked) -> dict[str, np.ndarray]:
        number, configuration = where[r.configuration]
        last = rounds[number]
        metrics = sweeps.read_metrics(last.folder, last.spec.runs_of(configuration))
        return metrics[configuration]

    def again() -> dict[str, Any] | None:
        if not fresh_seeds or best == driver.NO_BEST:
            return None
        return driver.fresh(
            rounds[best_round].spec,
            folder,
            best,
            budget.layout,
            budget.checkpointing,
            num_seeds=fresh_seeds,
            width=budget.width,
            limit=budget.limit,
        )

    spec = _together(search, rounds)

    def draw() -> list[Path]:
        comparable, remark = ranked, ""
        if is_halving:  # only configurations of the same rung have trained equally long
            comparable, remark = rounds[0].ranked, ", after the first rung"
        return [
            *report.draw_curves(spec, folder, ranked[: report.DRAWN], metrics_of),
            *report.draw_sensitivity(spec, folder, comparable, remark),
        ]

    about = search.rule.to_json() | spent(rounds)
    about["env_steps"] = round(sum(r.env_steps for r in ranked))
    if is_halving:
        part = f"{about['share_of_updates']:.1%}"
        driver.say(f"trained {part} of the updates that all configurations would take in full")
    return driver.conclude(spec, folder, ranked, again, draw, about)


def standing(rounds: list[Round], name: str) -> list[Ranked]:
    """All configurations, the best first, each by the scores of its last sweep.

    Configurations of later rungs come before those of earlier ones, and those without a score last.

    Args:
        rounds: the sweeps of the search.
        name: "rung", or "batch", whose configurations are ranked together.
    """
    found: dict[int, Ranked] = {}
    for k, done in enumerate(rounds):
        for r in done.ranked:
            number = done.numbers[r.configuration]
            stage = {name: k, "updates": done.updates[r.configuration][1]}
            found[number] = r._replace(configuration=number, stage=stage)
    ordered = report.ordered(found.values())
    if name == "rung":
        ordered.sort(key=lambda r: (not len(r.scores), -r.stage[name]))
    return ordered


def spent(rounds: Iterable[Round]) -> dict[str, Any]:
    """The number of updates that each seed was trained for, and their share of the updates that the
    configurations would take in full.
    """
    trained, planned = 0, {}
    for done in rounds:
        configs = [config for config, group in done.spec.programs() for _ in group]
        for number, config, (before, after) in zip(
            done.numbers, configs, done.updates, strict=True
        ):
            trained += after - before
            planned[number] = config.num_updates
    return {"updates": trained, "share_of_updates": trained / sum(planned.values())}


def _together(search: Search, rounds: list[Round]) -> SweepSpec:
    """A sweep of the configurations of all rounds."""
    if isinstance(search.rule, Halving):
        return search.sweep
    columns = [done.spec.table for done in rounds]
    table = {name: [x for column in columns for x in column[name]] for name in columns[0]}
    return dataclasses.replace(search.sweep, table=table)


def _rows(table: Table, chosen: list[int]) -> Table:
    """The rows of the chosen configurations."""
    return {name: [values[g] for g in chosen] for name, values in table.items()}
