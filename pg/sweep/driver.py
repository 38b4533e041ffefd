"""The driver of a sweep: plans the missing runs, trains them chunk by chunk, and writes results.

In a job of several processes the first one writes for all.
"""

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pg import numerals
from pg.commands import cli
from pg.commands.cli import Checkpointing
from pg.config import Config, Hyperparams, own_parts
from pg.envs.adapters.base import HostError
from pg.fast import devices
from pg.fast.devices import Layout
from pg.runs import (
    checkpoints,
    code,
    effects,
    execution,
    files,
    folders,
    host_states,
    memory,
    results,
    sweeps,
    writing,
)
from pg.runs.checkpoints import CheckpointWriter
from pg.sweep import chunks, report, rungs
from pg.sweep import spec as specs
from pg.sweep.chunks import Chunk, Plan
from pg.sweep.report import Ranked
from pg.sweep.rungs import Rung
from pg.sweep.spaces import hyperparams_of
from pg.sweep.spec import SweepSpec
from pg.train import make_learner

NO_BEST = -1  # in place of a configuration's number


def run_sweep(
    spec: SweepSpec,
    folder: Path,
    layout: Layout,
    checkpointing: Checkpointing,
    *,
    width: int | None,
    limit: int | None,
    fresh: int,
    allow_changed_code: bool = False,
) -> int:
    """Trains the runs that are missing in the folder, ranks the configurations, and trains the best
    one on fresh seeds.

    Args:
        spec: configurations × seeds.
        folder: the folder of the sweep.
        layout: the layout of the runs over devices.
        checkpointing: when checkpoints are written within a chunk.
        width: vmapped runs on each device, at most, see `chunks.plan`.
        limit: bytes of memory that this process may use; None: the free memory.
        fresh: number of fresh seeds; 0: none.
        allow_changed_code: as `run`.

    Returns:
        The exit code, see `cli`: 0, or NOT_FINITE if every run diverged, or every run of the best
        configuration on fresh seeds.

    Raises:
        ValueError: another process works in the folder, or as `run` and `spec.check`.
    """
    specs.check(spec, layout)
    say(f"{spec.title}: {tried(spec.num_configurations, len(spec.seeds))}; {folder}")
    say_presets(spec)
    say_promises(spec.configs())
    say_unused(spec, spec.table)
    with contextlib.ExitStack() as stack:
        if devices.is_first():
            specs.make(folder)
            stack.enter_context(folders.locked(folder, of_run=True))
        stack.enter_context(host_states.closing(spec.configs()))
        width = run(
            spec,
            folder,
            layout,
            checkpointing,
            width=width,
            limit=limit,
            allow_changed_code=allow_changed_code,
        )
        finite = finish(
            spec, folder, layout, checkpointing, fresh_seeds=fresh, width=width, limit=limit
        )
        discard_checkpoints(folder)
    return 0 if finite else cli.NOT_FINITE


def tried(num_configurations: int, num_seeds: int) -> str:
    """The number of configurations and seeds in words, as "3 configurations × 8 seeds"."""
    configurations = numerals.counted(num_configurations, "configuration")
    return f"{configurations} × {numerals.counted(num_seeds, 'seed')}"


def say_presets(spec: SweepSpec) -> None:
    """Prints which settings follow each configuration's own estimator and environment, and differ
    from one to another.
    """
    varying = [name for name, values in spec.presets.items() if len(set(map(str, values))) > 1]
    if varying:
        names = ", ".join(varying)
        say(f"as with pg train, each configuration has its own {names} (sweep.json lists them)")


def say_of_other_code(find: Callable[[Path], Path | None], out: Path, folder: Path) -> None:
    """Prints, if a sweep is new, the folder of the unfinished one that differs only in the code of
    custom parts.

    Args:
        find: the method `unfinished_of_other_code` of the sweep or search.
        out: the folder of all sweeps.
        folder: of the sweep at hand.
    """
    if folder.exists():
        return
    other = find(out)
    if other is not None:
        say(
            f"{other} holds this sweep, unfinished, with other code of your own parts: "
            "--allow-changed-code continues it"
        )


def check_code(
    configs: Iterable[Config],
    folder: Path,
    stored: Iterable[Mapping[str, Any]],
    *,
    allow_changed_code: bool,
) -> list[str]:
    """Sentences on the custom parts whose code has changed since a sweep or search was started.

    Args:
        configs: its static settings.
        folder: its folder.
        stored: its recorded custom parts.
        allow_changed_code: the code may have changed.

    Raises:
        ValueError: it has changed, and may not.
    """
    changed = specs.changed_code(configs, stored)
    if changed and not allow_changed_code:
        raise ValueError(
            f"{folder} holds the sweep with other code: {'; '.join(changed)}; "
            "--allow-changed-code (in Python allow_changed_code=True) continues it with the "
            "current code, and another --out starts a new sweep"
        )
    return changed


def say_promises(configs: Iterable[Config]) -> None:
    """Prints how unfinished episodes resume if runs with these settings are interrupted."""
    for sentence in host_states.promises(configs):
        say(sentence)


def say_unused(spec: SweepSpec, names: Iterable[str]) -> None:
    """Prints which of the varied hyperparameters have no effect in any configuration, in the first
    process of a job: it takes a trace of the updates.
    """
    if not devices.is_first():
        return
    unused = [name for name in names if name in Hyperparams._fields]
    for config in spec.configs():
        if not unused:
            return
        unused = effects.without_effect(config, spec.hyperparams, unused)
    if unused:
        say(effects.remark(unused, spec.title))


def run(
    spec: SweepSpec,
    folder: Path,
    layout: Layout,
    checkpointing: Checkpointing,
    *,
    width: int | None = None,
    fixed: bool = False,
    limit: int | None = None,
    rung: Rung = rungs.WHOLE,
    allow_changed_code: bool = False,
) -> int | None:
    """Trains the runs that are missing in the folder; each chunk is written when it is finished.

    Args:
        spec: configurations × seeds.
        folder: the folder of the sweep.
        layout: the layout of the runs over devices.
        checkpointing: when checkpoints are written within a chunk.
        width: see `chunks.plan`; a sweep that is resumed keeps its width.
        fixed: see `chunks.plan`.
        limit: bytes of memory that this process may use; None: the free memory.
        rung: the range of updates that a search trains here; default: all.
        allow_changed_code: the code of custom parts may have changed since the sweep was started;
            this is recorded.

    Returns:
        The width of the chunks; None if there was nothing to run.

    Raises:
        ValueError: the sweep was started with another width or other code, or as `chunks.plan`.
        Interrupted: after a signal.
    """
    done, stored = specs.start(spec, folder) if devices.is_first() else (0, None)
    done, stored = devices.agreed(done), devices.agreed(stored or 0)
    if stored and width and width != stored:
        raise ValueError(
            f"this sweep was started with --width {stored}: leave --width out, or "
            f"choose another --out"
        )
    versions = folders.environment(layout) | host_states.about(spec.configs())
    if stored and devices.is_first():
        recorded = specs.stored_parts(folder)
        changed = check_code(
            spec.configs(), folder, recorded, allow_changed_code=allow_changed_code
        )
        # after the last run the fresh seeds may remain
        is_finished = (folder / "summary.json").exists()
        if done < spec.num_runs or (changed and not is_finished):
            _take_versions(spec, folder, stored, versions, done, changed)
    if done:
        are = numerals.agreeing(done, "is", "are")
        say(f"{done} of {spec.num_runs} runs {are} finished in {folder}")
    for i, (config, group) in enumerate(spec.programs()):
        first, count = group.start * len(spec.seeds), len(group) * len(spec.seeds)
        if done >= first + count:
            continue
        title = f"program {i + 1} of {len(spec.programs())}: " if len(spec.programs()) > 1 else ""
        say(f"{title}compiling ...")
        h = hyperparams_of(spec.hyperparams, spec.traced(group))
        with cli.waiting("compiling", quiet=not devices.is_first()):
            plan = compile_plan(
                spec,
                config,
                h,
                layout,
                width=stored or width,
                fixed=fixed or bool(stored),
                limit=limit,
            )
        if devices.is_first() and not stored:
            specs.write_setup(spec, folder, plan.width, versions)
        stored = stored or plan.width
        say(described(plan, count, layout))
        start = max(0, done - first)
        _run_group(spec, folder, config, group, plan, start, checkpointing, rung)
    return stored or None


def discard_checkpoints(folder: Path) -> None:
    """Removes all checkpoints of a sweep, in the first process of a job."""
    if devices.is_first():
        _discard(folder / "checkpoints", "*")
        files.remove_if_empty(folder / "checkpoints")


def compile_plan(
    spec: SweepSpec,
    config: Config,
    hyperparams: Hyperparams,
    layout: Layout,
    *,
    width: int | None,
    fixed: bool = False,
    limit: int | None,
) -> Plan:
    """The compiled programs of one static setting. hyperparams: its configurations, leaves [G]."""
    num_configurations = len(hyperparams.learning_rate)
    return chunks.plan(
        config,
        execution.broadcast(hyperparams, num_configurations),
        num_configurations * len(spec.seeds),
        layout,
        width=width,
        fixed=fixed,
        budget=None if limit is None else memory.for_programs(layout.num_local, limit),
        episodes=spec.episodes,
        actions=(spec.actions,),
        exact=spec.exact,
    )


def described(plan: Plan, num_runs: int, layout: Layout) -> str:
    """The plan in words."""
    size = plan.programs.num_bytes * layout.num_local
    on = chunks.each_of(layout.mesh.size)
    if jax.process_count() > 1:
        on += f" of {jax.process_count()} processes"
    num_chunks = -(-num_runs // plan.chunk)
    in_chunks = f"{numerals.counted(num_chunks, 'chunk')} of {plan.chunk}"
    return (
        f"{numerals.counted(num_runs, 'run')} in {in_chunks}, {plan.width} vmapped on {on}; "
        f"{memory.readable(size)} for the programs, {memory.readable(plan.bytes_per_run)} a run; "
        f"compiled {plan.compilations}× in {plan.programs.seconds:.1f} s"
    )


def finish(
    spec: SweepSpec,
    folder: Path,
    layout: Layout,
    checkpointing: Checkpointing,
    *,
    fresh_seeds: int,
    width: int | None,
    limit: int | None = None,
) -> bool:
    """Ranks and plots the configurations, trains the best one on fresh seeds, and prints and writes
    the report.

    The arguments are those of `run_sweep`. Returns True if there is a mean return to report. If
    every run diverged, there is no best configuration, and nothing else is trained.
    """
    ranked = report.rank(spec, sweeps.read_runs(folder)) if devices.is_first() else []
    best = devices.agreed(ranked[0].configuration if report.any_finite(ranked) else NO_BEST)

    def again() -> dict[str, Any] | None:
        if not fresh_seeds or best == NO_BEST:
            return None
        return fresh(
            spec,
            folder,
            best,
            layout,
            checkpointing,
            num_seeds=fresh_seeds,
            width=width,
            limit=limit,
        )

    def draw() -> list[Path]:
        return report.draw(spec, folder, ranked)

    return conclude(spec, folder, ranked, again, draw)


def conclude(
    spec: SweepSpec,
    folder: Path,
    ranked: list[Ranked],
    try_again: Callable[[], dict[str, Any] | None],
    draw: Callable[[], list[Path]],
    about: Mapping[str, Any] | None = None,
) -> bool:
    """Prints and writes the report. Returns True if there is a mean return to report.

    Args:
        spec: the names that are varied, and the seeds.
        folder: the folder of the sweep.
        ranked: all configurations, the best first; [] in processes that do not write.
        try_again: trains the best one on fresh seeds, and returns its summary, or None if there are
            no fresh seeds.
        draw: draws the figures, and returns their files.
        about: further entries of the summary.
    """
    if ranked:
        report.write(spec, folder, ranked)
        print(report.table(spec, ranked), flush=True)
    again = try_again()
    if ranked:
        summary = {**report.summary(spec, ranked, again), **(about or {})}
        folders.write_json(folder / "summary.json", summary)
        for sentence in report.verdict(spec, ranked, again).splitlines():
            say(sentence)
        drawn = draw()
        print(folder / "configurations.csv", *drawn, sep="\n", flush=True)
        say(f"peak memory of this process: {memory.readable(memory.peak())}")
    is_finite = devices.agreed(int(report.any_finite(ranked)))
    return bool(is_finite) and (again is None or "mean" in again)


def fresh(
    spec: SweepSpec,
    folder: Path,
    best: int,
    layout: Layout,
    checkpointing: Checkpointing,
    *,
    num_seeds: int,
    width: int | None,
    limit: int | None,
) -> dict[str, Any]:
    """Trains configuration `best` on seeds beyond those of the sweep, in the run folder
    FOLDER/best, and returns its summary. The other arguments are those of `run_sweep`.
    """
    config, _ = next(group for group in spec.programs() if best in group[1])
    seeds = range(spec.seeds.stop, spec.seeds.stop + num_seeds)
    h = hyperparams_of(spec.hyperparams, spec.traced(range(best, best + 1)))
    again = SweepSpec(config, spec.hyperparams, {}, seeds, spec.episodes, spec.greedy, spec.exact)
    plan = compile_plan(again, config, h, layout, width=width, limit=limit)
    resumed: list[dict[str, Any]] = []  # of all chunks
    writers = deque[CheckpointWriter | None](maxlen=1)
    restore_chunk = _chunk_restorer(
        again,
        folder / "checkpoints",
        f"best-{best}",
        config,
        0,
        checkpointing,
        layout,
        record=resumed.extend,
        on_writer=writers.append,
    )
    keys, crossed = execution.seed_keys(seeds), chunks.crossed(h, num_seeds)
    started = time.monotonic()
    trained = chunks.chunks(plan, config, keys, crossed, restore_chunk=restore_chunk)
    done = list(_with_resumption(trained, writers, config))
    states = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.states for chunk in done))
    metrics = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.metrics for chunk in done))
    evaluations = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.evaluation for chunk in done))
    seconds = time.monotonic() - started
    on_nonfinite = config.on_nonfinite
    is_finished = not results.failed_runs(metrics, on_nonfinite).all()
    times = plan.programs.seconds, seconds
    run = execution.Run(states, metrics, is_finished, None, *times, on_nonfinite=on_nonfinite)
    if not devices.is_first():
        return writing.summarise(run, evaluations, seeds)
    place = folder / "best"
    files.make_folder(place)
    files.remove_leftovers(place)
    files.remove(place, r"summary\.json")  # without it a run has not ended
    best_h = jax.tree.map(lambda x: np.ravel(x)[0].item(), h)
    options = {
        "seed": seeds.start,
        "seeds": len(seeds),
        "eval_episodes": spec.episodes,
        "greedy": spec.greedy,
        "command": "sweep.py",
        "settings_of": spec.settings_of if "estimator" in own_parts(config) else None,
    }
    versions = folders.environment(layout) | host_states.about([config])
    if resumed:
        versions["resumed"] = resumed
    folders.write_setup(place, config, best_h, options, versions)
    return writing.write_results(place, run, evaluations, seeds)


def say(text: str) -> None:
    """Prints a paragraph, wrapped to the terminal, in the first process of a job."""
    if devices.is_first():
        cli.say(text)


def _take_versions(
    spec: SweepSpec,
    folder: Path,
    width: int,
    versions: Mapping[str, Any],
    done: int,
    changed_code: Sequence[str] = (),
) -> None:
    """Updates the versions and the code in sweep.json if bits can depend on what has changed since;
    prints and records the change if `done` > 0 runs finished under the old versions, or the code
    has changed.
    """
    before = specs.stored_versions(folder)
    changed = [*checkpoints.changes(before, versions), *changed_code]
    if not changed:
        return
    resumed = list(before.get("resumed", []))
    if done or changed_code:
        say(
            f"note: the remaining runs may differ in bits from the finished ones, since "
            f"{'; '.join(changed)}"
        )
        resumed.append({"changed": changed})
    specs.write_setup(spec, folder, width, {**versions, "resumed": resumed})


def _run_group(
    spec: SweepSpec,
    folder: Path,
    config: Config,
    group: range,
    plan: Plan,
    start: int,
    checkpointing: Checkpointing,
    rung: Rung,
) -> None:
    """Trains the runs of one static setting, from its run `start` on."""
    num_updates = rung.updates(config)
    first, count = group.start * len(spec.seeds), len(group) * len(spec.seeds)
    seeds = np.arange(count) % len(spec.seeds)
    train_keys, eval_keys = execution.seed_keys(spec.seeds)
    keys = train_keys[seeds], eval_keys[seeds]
    h = chunks.crossed(hyperparams_of(spec.hyperparams, spec.traced(group)), len(spec.seeds))
    left = -(-(count - start) // plan.chunk)
    progress = cli.Progress(left * num_updates, quiet=not devices.is_first())
    progress.begin()
    began, finished = time.monotonic(), 0
    writers = deque[CheckpointWriter | None](maxlen=1)

    def on_chunk(updates: int, seconds: float, metrics: Mapping[str, np.ndarray]) -> None:
        progress(finished * num_updates + updates, time.monotonic() - began, metrics)

    try:
        restore_chunk = _chunk_restorer(
            spec,
            folder / "checkpoints",
            "chunk",
            config,
            first,
            checkpointing,
            plan.programs.layout,
            rung,
            record=functools.partial(specs.record_resumed, folder),
            on_writer=writers.append,
        )
        trained = chunks.chunks(
            plan,
            config,
            keys,
            h,
            start=start,
            on_chunk=on_chunk,
            restore_chunk=restore_chunk,
            until=num_updates,
        )
        for chunk in _with_resumption(trained, writers, config):
            finished += 1
            progress.begin_others()
            if devices.is_first():
                specs.write_chunk(spec, folder, first + chunk.start, chunk)
                if rung.is_last:
                    _discard(folder / "checkpoints", "chunk-*")
            if finished == 1 and left > 1:
                took = time.monotonic() - began
                rest = tqdm.format_interval(took * (left - 1))
                say(f"first chunk in {took:.1f} s; about {rest} for the other {left - 1}")
    finally:
        progress.close()


def _with_resumption(
    trained: Iterator[Chunk], writers: Sequence[CheckpointWriter | None], config: Config
) -> Iterator[Chunk]:
    """The chunks, as soon as they are trained; if an environment fails, the error says how to
    resume.

    writers: of the checkpoints; the last one is that of the chunk in progress, or None. config: of
    the chunks.
    """
    try:
        yield from trained
    except HostError as error:
        # the name of the folder depends on the digests of files
        mended = code.remark_on_mending(config)
        kept = f"finished runs are kept, and the same command trains the others{mended}"
        fault = error.with_command(kept)
        if writers and (writer := writers[-1]) is not None:
            fault = host_states.with_resumption(fault, writer, "it")
        raise fault from None


def _chunk_restorer(
    spec: SweepSpec,
    folder: Path,
    name: str,
    config: Config,
    first: int,
    checkpointing: Checkpointing,
    layout: Layout,
    rung: Rung = rungs.WHOLE,
    *,
    record: Callable[[list[dict[str, Any]]], object],
    on_writer: Callable[[CheckpointWriter | None], object] = lambda writer: None,
) -> chunks.RestoreChunk:
    """Chunks are stored in FOLDER/NAME-<first run>-<last run> while they are trained, and resume
    from these files; those of a rung stay when they are finished, as the next rung continues from
    them.

    first: of the runs of `config`, their number in the spec. record: is given the entries of
    `resumed` of a chunk that is resumed, one for every interruption so far that may have changed
    its results.
    on_writer: is given the writer of a chunk's checkpoints, and None before there is one.
    """
    num_updates, hold = rung.updates(config), host_states.can_fail(config)
    template = jax.eval_shape(make_learner(config, spec.hyperparams).init, jax.random.key(0))
    metadata = {"setup": spec.to_json(), "versions": folders.environment(layout)}

    def restore_chunk(start: int, count: int, keys: jax.Array, hyperparams: Hyperparams) -> Any:
        on_writer(None)  # an error while states are restored does not concern the previous chunk
        columns = specs.labelled(spec, first + start, count)
        place = (
            folder / f"{name}-{first + start:06}-{first + start + count - 1:06}"
            if devices.is_first()
            else None
        )
        found, resumed = None, list[dict[str, Any]]()
        if place:
            files.make_folder(place, within=folder.parent)
            try:
                found = checkpoints.restore(place, template, metadata, count)
            except checkpoints.DamageError as error:
                say(f"{error}; these runs restart")
                checkpoints.discard(place)
            if found is None and rung.earlier:
                runs = range(first + start, first + start + count)
                found = rungs.carried_over(rung.earlier, runs, place, template, metadata, columns)
        if found:
            found = host_states.taken_up(config, hyperparams, found, keys)
            for remark in found.messages():
                say(remark)
            resumed += found.resumed
            if found.changed:
                numbers = [first + start, first + start + count - 1]
                after = found.partial.updates
                resumed.append({"runs": numbers, "after": after, "changed": found.changed})
            record(resumed)
        partial = checkpoints.shared(found, template, count)
        versions = metadata["versions"] | ({"resumed": resumed} if resumed else {})
        about = {**metadata, "versions": versions}
        writer = checkpointing.checkpoint_writer(place, about, columns, partial, hold=hold)
        on_writer(writer)

        def on_checkpoint(done: int, states: Any, metrics: Any, last: bool) -> None:
            ended = done == num_updates
            is_written = ended and rung.is_last  # elsewhere
            writer(done, states, metrics, last and not is_written)
            if ended:
                writer.wait()

        return partial, on_checkpoint

    return restore_chunk


def _discard(folder: Path, pattern: str) -> None:
    """Removes the checkpoints below a folder, unless that is a symbolic link."""
    if not folder.is_symlink():
        for place in sorted(folder.glob(pattern)):
            checkpoints.discard(place)
