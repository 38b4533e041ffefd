"""The specification of a sweep, and its folder: the same specification finds the same folder.

OUT/ENV/ESTIMATOR/sweep-<digest of the specification>/
    sweep.json                  settings, configurations, seeds, width, versions
    metrics/000000-000127.parquet   a row per run and update
    runs/000000-000127.parquet      a row per run; written last, so that its chunk is finished
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pg import envs
from pg.accumulation import num_micro_batches
from pg.commands import cli
from pg.config import (
    PARTS,
    READ_TOGETHER,
    Config,
    Hyperparams,
    check_together,
    merge_env_params,
    name_of,
    own_parts,
)
from pg.estimators.names import canonical
from pg.fast.devices import Layout
from pg.inputs import Optional, check_name
from pg.reports import tables
from pg.runs import code, files, folders, policy_files, results, sweeps
from pg.runs import execution as runs
from pg.settings.parts import check_names_differ, row_name
from pg.settings.stored_params import FIELDS as STORED
from pg.sweep import spaces
from pg.sweep.chunks import Chunk
from pg.sweep.spaces import Table, hyperparams_of

# Columns that a row per run needs besides its labels, see `results.per_seed`.
RESULTS = ("env_steps", "finite", "mean", "standard_error", "min", "max")
WIDEST = 2**20  # vmapped runs on a device, at most


@dataclass(frozen=True)
class SweepSpec:
    """Configurations × seeds, the settings they share, and the evaluation of the final policies."""

    config: Config
    hyperparams: Hyperparams
    # G values for each name, a field of Config or Hyperparams, or a parameter of the environment
    table: Table
    seeds: range
    episodes: int = 100
    greedy: bool = False
    exact: bool = False
    # names of the settings that are the same for all configurations, while the others follow the
    # estimator and the environment of each; None: all are the same
    given: frozenset[str] | None = None
    # with `given`, the estimator or variant whose settings custom estimators have; None: their own
    settings_of: str | None = None
    presets: Table = dataclasses.field(init=False)  # the settings that differ, see `spaces.presets`

    def __post_init__(self) -> None:
        """Sorts the configurations by their program. Raises ValueError for an invalid setting."""
        config, hyperparams = merge_env_params(self.config, self.hyperparams)
        object.__setattr__(self, "config", config)
        object.__setattr__(self, "hyperparams", hyperparams)
        if "estimator" in self.table:
            named = [canonical(x) for x in self.table["estimator"]]
            object.__setattr__(self, "table", {**self.table, "estimator": named})
        if varied := [name for name in STORED if name in self.table]:
            raise ValueError(f"{varied[0]} cannot be varied: start a sweep for each of its values")
        for name in (part for part in PARTS if part in self.table):
            check_names_differ(name, dict.fromkeys(self.table[name]))
        self._set_presets()
        order = sorted(range(self.num_configurations), key=lambda g: self._first_like(g))
        table = {name: [values[g] for g in order] for name, values in self.table.items()}
        object.__setattr__(self, "table", table)
        self._set_presets()  # in the same order
        for config, group in self.programs():  # which checks every Config
            num_micro_batches(config)
            traced = self.traced(group)
            hyperparams_of(self.hyperparams, traced)
            for name in READ_TOGETHER:
                for value in traced.get(name, [getattr(self.hyperparams, name)]):
                    check_together(config, self.hyperparams._replace(**{name: value}))

    def _set_presets(self) -> None:
        """Sets the presets that go with the table; they do not label configurations."""
        own = spaces.presets(self.table, self.config, self.given, self.settings_of)
        object.__setattr__(self, "presets", own)

    @property
    def num_configurations(self) -> int:
        """G."""
        return len(next(iter(self.table.values()), [0]))

    @property
    def title(self) -> str:
        """The estimator and the environment in words, unless they are varied."""
        if "estimator" in self.table or "env" in self.table:
            fixed = [name for name in ("estimator", "env") if name not in self.table]
            return " on ".join(map(self._name, fixed)) or "sweep"
        return self.config.title

    @property
    def actions(self) -> str:
        """The way in which the final policies act, "greedy" or "sampled"."""
        return "greedy" if self.greedy else "sampled"

    @property
    def num_runs(self) -> int:
        """G · S."""
        return self.num_configurations * len(self.seeds)

    def runs_of(self, g: int) -> range:
        """The indices of the runs of a configuration."""
        return range(g * len(self.seeds), (g + 1) * len(self.seeds))

    def programs(self) -> list[tuple[Config, range]]:
        """The static settings, each with its configurations; each is compiled once."""
        groups: list[tuple[Config, range]] = []
        for g in range(self.num_configurations):
            if groups and self._static(g) == self._static(groups[-1][1][0]):
                config, group = groups[-1]
                groups[-1] = config, range(group.start, g + 1)
            else:
                config = dataclasses.replace(self.config, **self._static(g))
                groups.append((config, range(g, g + 1)))
        return groups

    def configs(self) -> list[Config]:
        """The static settings of every program."""
        return [config for config, _ in self.programs()]

    def traced(self, group: range) -> Table:
        """The values of some configurations that are arguments of the program."""
        traced = {}
        for name, values in {**self.presets, **self.table}.items():
            if name not in _STATIC:
                traced[name] = [values[g] for g in group]
        return traced

    def values(self, g: int) -> dict[str, Any]:
        """The values of a configuration by name; for custom parts their names."""
        return {name: label(name, values[g]) for name, values in self.table.items()}

    def to_json(self) -> dict[str, Any]:
        """The specification as JSON-able data; custom parts by name and digest, not by path."""
        fields = {name: getattr(self, name) for name in ("episodes", "greedy", "exact")}
        settings = {"config": self.config.to_json(), "hyperparams": self.hyperparams.scalars()}
        table = {
            name: [label(name, value) for value in values] for name, values in self.table.items()
        }
        data = {
            **settings,
            "table": table,
            **fields,
            "first_seed": self.seeds.start,
            "num_seeds": len(self.seeds),
            **({"presets": self.presets} if self.presets else {}),
        }
        parts = [
            {"field": entry["field"], "name": entry["name"], "sha256": code.digest(entry)}
            for entry in self.parts()
        ]
        return {**data, "parts": parts} if parts else data

    def parts(self) -> list[dict[str, Any]]:
        """The custom parts of all configurations, see `code.record`, and the fields they are in."""
        entries: list[dict[str, Any]] = []
        for config in self.configs():
            for field, entry in code.record(config).items():
                if (labelled := {"field": field, **entry}) not in entries:
                    entries.append(labelled)
        return entries

    def folder(
        self,
        out: Path,
        search: Mapping[str, Any] | None = None,
        *,
        allow_changed_code: bool = False,
    ) -> Path:
        """The folder of the sweep below `out`: one that was started with this specification, also
        under former names of settings, or a new one.

        Args:
            out: the folder of all sweeps.
            search: the further entries of a search's specification.
            allow_changed_code: instead of a new folder, `unfinished_of_other_code`, if there is
                one.
        """
        kind, data = "sweep", self.to_json()
        if search:
            kind, data = "search", {**data, "search": search}
        text = json.dumps(folders.jsonable(data), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{kind}-{digest}"
        for place in self._places(out):
            if (place / name).exists():
                return place / name
            for path in sorted(place.glob(f"{kind}-*/{kind}.json")):
                if self._is_stored_in(path, search):
                    return path.parent
        if allow_changed_code and (other := self.unfinished_of_other_code(out, search)):
            return other
        return self._places(out)[0] / name

    def unfinished_of_other_code(
        self, out: Path, search: Mapping[str, Any] | None = None
    ) -> Path | None:
        """The folder of the newest unfinished sweep below `out` that differs from this one only in
        the code of custom parts; None if there is none. search: see `folder`.
        """
        kind = "search" if search else "sweep"
        unfinished = [
            path
            for place in self._places(out)
            for path in place.glob(f"{kind}-*/{kind}.json")
            if not (path.parent / "summary.json").exists()
            and self._is_stored_in(path, search, any_code=True)
        ]
        newest = max(unfinished, key=lambda path: path.stat().st_mtime, default=None)
        return newest.parent if newest else None

    def _places(self, out: Path) -> list[Path]:
        """The folders that may hold the sweep's: that of a new one first."""
        above = folders.place(out, self._name("env"), self._name("estimator"))
        # earlier versions put a sweep under the estimator of its config even if that was varied
        return list(dict.fromkeys((above, folders.parent(out, self.config))))

    def _name(self, field: str) -> str:
        """The name of the environment or the estimator; all names, joined, if it is varied."""
        values = self.table.get(field, [getattr(self.config, field)])
        is_env_object = field == "env" and not isinstance(values[0], str)
        name = name_of if is_env_object else row_name
        return "-".join(dict.fromkeys(map(name, values)))

    def _is_stored_in(
        self, path: Path, search: Mapping[str, Any] | None, *, any_code: bool = False
    ) -> bool:
        """True if a sweep.json or search.json has this specification; fields that it lacks, as they
        are newer, count as defaults. any_code: custom parts count by their names alone.
        """
        expected = folders.jsonable(self.to_json())
        try:
            stored = sweeps.read_stored(path.parent, path.name)
            own = {
                field: part
                for field, part in own_parts(self.config).items()
                if stored["config"].get(field) == expected["config"][field]
            }
            named = {**stored, "config": {**stored["config"], **own}}
            config, hyperparams = folders.stored_settings(named)
        except ValueError:  # damaged, or with a setting that no longer exists
            return False
        of_search, wanted = stored.get("search") or {}, folders.jsonable(search or {})
        names = set(expected) - {"config", "hyperparams", "parts"}
        same = (config, hyperparams) == (self.config, self.hyperparams)
        same &= all(stored.get(name) == expected[name] for name in names)
        same &= {**of_search, "parts": None} == {**wanted, "parts": None}
        for before, now in ((stored, expected), (of_search, wanted)):
            same &= _codes(before, any_code) == _codes(now, any_code)
        return same

    def _static(self, g: int) -> dict[str, Any]:
        every = {**self.presets, **self.table}
        return {name: values[g] for name, values in every.items() if name in _STATIC}

    def _first_like(self, g: int) -> int:
        return next(i for i in range(g + 1) if self._static(i) == self._static(g))


_STATIC = tuple(field.name for field in dataclasses.fields(Config))


def label(name: str, value: Any) -> Any:
    """A value as it is written to files: the name of a part, any other value as it is."""
    return row_name(value) if name in PARTS and value is not None else value


def _codes(data: Mapping[str, Any], any_code: bool) -> list[tuple[str, str, str]]:
    """Field, name and digest of the custom parts of a specification. any_code: digests are ""."""
    parts = data.get("parts", [])
    return [(x["field"], x["name"], "" if any_code else code.digest(x)) for x in parts]


def check_names(spec: SweepSpec) -> None:
    """Raises ValueError, with the nearest valid names, for a name that cannot be varied."""
    for config, group in spec.programs():
        names = [name for name in spec.traced(group) if name not in Hyperparams._fields]
        of_env = envs.parameters(config.env)
        known = [*Hyperparams().scalars(), *_STATIC, *of_env]
        listed = (
            f"pg sweep --help lists the settings, and the environment's own are {', '.join(of_env)}"
        )
        for name in names:
            if name in ("seed", "seeds"):
                raise ValueError(f"{name} is no setting to vary: every row has --seeds of them")
            check_name("setting to vary", name, known, listed)


def check(spec: SweepSpec, layout: Layout) -> None:
    """Raises ValueError for every mistake that can be found before the first update.

    These are names that cannot be varied, values that a parameter of the environment cannot have,
    and static settings that the environment refuses, which would otherwise be found only when their
    program is compiled.
    """
    check_names(spec)
    for config, group in spec.programs():
        layout.check(config)
        traced = spec.traced(group)
        of_env = {name: x for name, x in traced.items() if name not in Hyperparams._fields}
        envs.check_parameters(config.env, of_env)
        for i in range(len(group)):
            env_params = {name: values[i] for name, values in of_env.items()}
            merge_env_params(config, spec.hyperparams._replace(env_params=env_params))
        if len(spec.programs()) > 1:
            first = {name: values[:1] for name, values in traced.items()}
            points = runs.broadcast(hyperparams_of(spec.hyperparams, first), 1)
            runs.check_update(config, jax.tree.map(lambda x: x[0], points))


def make(folder: Path) -> None:
    """Makes the folder unless it exists. Raises ValueError if it cannot be made."""
    try:
        for name in ("metrics", "runs", "checkpoints"):
            files.make_folder(folder / name, within=folder)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None


def start(spec: SweepSpec, folder: Path) -> tuple[int, int | None]:
    """The number of finished runs in the folder, and their width, None for a new sweep.

    A chunk whose file is corrupt is run again, with those after it. Raises ValueError if sweep.json
    is corrupt, or if a file cannot be read because memory is short or the disk fails: the file may
    be intact, and is kept.
    """
    make(folder)
    for place in (folder, folder / "metrics", folder / "runs"):
        files.remove_leftovers(place)
    finished = sweeps.chunk_files(folder, "runs")
    for i, path in enumerate(finished):
        try:
            _check_chunk(spec, path)
        except files.UnreadableError:
            raise
        except ValueError as error:
            reason = error.args[0].partition(", remove")[0]
            cli.say(f"{reason}: its runs, and those after them, are run again")
            for later in finished[i:]:
                later.unlink()
            break
    return len(sweeps.read_runs(folder).get("run", ())), stored_width(folder)


def stored_width(folder: Path) -> int | None:
    """The width that a sweep was started with; None for a new one."""
    path = folder / "sweep.json"
    if not os.path.lexists(path):
        return None
    width: int = folders.read_json(path, {"width": int})["width"]
    if not 1 <= width <= WIDEST:
        raise ValueError(f"{path} is corrupt: width must be between 1 and {WIDEST}, got {width}")
    return width


def stored_versions(folder: Path) -> dict[str, Any]:
    """The software and the machine that a sweep was started or last resumed with."""
    path = folder / "sweep.json"
    stored = folders.read_json(path, {"versions": Optional(folders.VERSIONS)})
    return dict(stored.get("versions", {}))


def stored_parts(folder: Path) -> list[dict[str, Any]]:
    """The entries of the custom parts in a sweep.json."""
    stored = folders.read_json(folder / "sweep.json", {"parts": Optional(code.LIST_JSON)})
    return list(stored.get("parts", []))


def changed_code(configs: Iterable[Config], stored: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences on the custom parts whose code differs from that which was recorded.

    Args:
        configs: all static settings.
        stored: the recorded entries.
    """
    entries = list(stored)
    said = []
    for config in configs:
        names = {field: entry["name"] for field, entry in code.record(config).items()}
        before = {
            entry["field"]: entry for entry in entries if names.get(entry["field"]) == entry["name"]
        }
        said += code.changes(before, config)
    return list(dict.fromkeys(said))


def record_resumed(folder: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Adds the new entries of a chunk to `resumed` of the versions in sweep.json.

    The last stored entry is replaced if it is about the whole sweep and contains nothing more.
    """
    path = folder / "sweep.json"
    stored = folders.read_json(path, {"versions": folders.VERSIONS})
    resumed = list(stored["versions"].get("resumed", []))
    new = [entry for entry in entries if entry not in resumed]
    if not new:
        return
    if resumed and _says_no_more(resumed[-1], new[-1]):
        resumed.pop()
    versions = {**stored["versions"], "resumed": [*resumed, *new]}
    folders.write_json(path, {**stored, "versions": versions})


def _says_no_more(of_sweep: Mapping[str, Any], of_chunk: Mapping[str, Any]) -> bool:
    """True if the entry of a chunk has all changes that the entry of the whole sweep has."""
    changed = of_sweep.get("changed", [])
    of_both = of_chunk.get("changed", [])
    return "runs" not in of_sweep and all(change in of_both for change in changed)


def write_setup(spec: SweepSpec, folder: Path, width: int, versions: Mapping[str, Any]) -> None:
    """Writes sweep.json.

    Args:
        spec: the sweep.
        folder: its folder.
        width: vmapped runs on each device.
        versions: software and machine, see `folders.environment`.
    """
    about = {**spec.to_json(), "width": width, "versions": versions}
    about["settings_of"] = spec.settings_of  # the settings follow from it; it is not one itself
    if parts := spec.parts():
        about["parts"] = parts
        for config in spec.configs():
            code.write_texts(folder, config)
    policy_files.write_copies(folder, spec.config)
    folders.write_json(folder / "sweep.json", about)


def write_chunk(spec: SweepSpec, folder: Path, start: int, chunk: Chunk) -> None:
    """Writes the two files of a chunk whose first run is number `start` of the sweep."""
    metrics = chunk.metrics
    labels = labelled(spec, start, len(metrics["env_steps"]))
    run, configuration = labels["run"], labels["configuration"]
    varied = {name: [spec.values(g)[name] for g in configuration] for name in spec.table}
    on_nonfinite = spec.values(configuration[0]).get("on_nonfinite", spec.config.on_nonfinite)
    scores = results.per_seed(metrics, chunk.evaluation[spec.actions], on_nonfinite)
    name = f"{run[0]:06}-{run[-1]:06}.parquet"
    tables.write_parquet(folder / "metrics" / name, results.long_form(metrics, **labels))
    tables.write_parquet(folder / "runs" / name, {**labels, **varied, **scores})


def _check_chunk(spec: SweepSpec, path: Path) -> None:
    """Raises ValueError unless both files of a finished chunk look like those of `write_chunk`,
    judged by their schemas and row numbers.
    """
    numbers = sweeps.runs_of(path)
    first, count = numbers.start, len(numbers)
    if not 1 <= count <= spec.num_runs - first:
        raise ValueError(f"{path} is corrupt, remove it: the sweep has {spec.num_runs} runs")
    rows = sweeps.read_chunk(path, most_rows=count, texts=True)
    wanted = {"run", "configuration", "seed", *spec.table, *RESULTS}
    if lacking := sorted(wanted - set(rows)):
        raise ValueError(f"{path} is corrupt, remove it: it has no column {lacking[0]}")
    same_runs = np.array_equal(rows["run"], first + np.arange(count))
    if not same_runs or any(rows[name].dtype == object for name in RESULTS):
        raise ValueError(f"{path} is corrupt, remove it: it has other runs")
    longest = count * max(config.num_updates for config in spec.configs())
    tables.read_parquet(path.parents[1] / "metrics" / path.name, ["run"], most_rows=longest)


def labelled(spec: SweepSpec, start: int, count: int) -> dict[str, Any]:
    """The labels of the runs start, start + 1, ..., [count] each."""
    run = start + np.arange(count)
    return {
        "run": run,
        "configuration": run // len(spec.seeds),
        "seed": spec.seeds.start + run % len(spec.seeds),
    }
