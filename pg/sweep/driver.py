"""Carrying out a sweep: what is missing is planned, run chunk by chunk and written, by one process
for all.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pg.commands import cli
from pg.commands.cli import Checkpointing
from pg.config import Config, Hyperparams
from pg.fast import devices
from pg.fast.devices import Layout
from pg.runs import checkpoints, execution, files, folders, memory, writing
from pg.sweep import chunks, report
from pg.sweep import study as studies
from pg.sweep.chunks import Plan
from pg.sweep.points import hyperparams_of
from pg.sweep.study import Study
from pg.train import make_learner

NO_BEST = -1  # the number of a setting that there is not


def carry_out(
    study: Study,
    folder: Path,
    where: Layout,
    how: Checkpointing,
    *,
    width: int | None,
    limit: int | None,
    fresh: int,
) -> int:
    """Runs what is missing in the folder, ranks the settings, and tries the best on so many fresh
    seeds.

    Returns the exit code, as of `cli`: 0, or NOT_FINITE where every run diverged, of the settings
    or of the best on fresh seeds. Arguments and errors: of `run` and `finish`. Raises ValueError
    where another process works in the folder, and as `study.check` does.
    """
    studies.check(study, where)
    tried = f"{study.num_points} settings × {len(study.seeds)} seeds"
    say(f"{study.config.estimator} on {study.config.env}: {tried}; {folder}")
    with contextlib.ExitStack() as stack:
        if devices.is_first():
            studies.make(folder)
            stack.enter_context(folders.locked(folder))
        width = run(study, folder, where, how, width=width, limit=limit)
        finite = finish(study, folder, where, how, fresh_seeds=fresh, width=width, limit=limit)
        if devices.is_first():
            _discard(folder / "checkpoints", "*")
            files.remove_if_empty(folder / "checkpoints")
    return 0 if finite else cli.NOT_FINITE


def run(
    study: Study,
    folder: Path,
    where: Layout,
    how: Checkpointing,
    *,
    width: int | None = None,
    limit: int | None = None,
) -> int | None:
    """Runs what is missing in the folder. -> the width it is run at. Every chunk is written once it
    is finished.

    width: as of `chunks.plan`; of a sweep that was begun, the one it was begun with. limit: bytes
    of memory that this process may have; None: what is free. how: within a chunk. Raises ValueError
    for another width than that, and as `plan` does; Interrupted after a signal.
    """
    done, stored = studies.start(study, folder) if devices.is_first() else (0, None)
    done, stored = devices.agreed(done), devices.agreed(stored or 0)
    if stored and width and width != stored:
        raise ValueError(
            f"this sweep was begun with --width {stored}: leave --width out, or "
            f"choose another --out"
        )
    versions = folders.environment(where)
    if stored and done < study.num_runs and devices.is_first():
        _say_changes(study, folder, stored, versions)
    if done:
        say(f"{done} of {study.num_runs} runs are finished in {folder}")
    for i, (config, points) in enumerate(study.programs()):
        first, count = points.start * len(study.seeds), len(points) * len(study.seeds)
        if done >= first + count:
            continue
        title = f"program {i + 1} of {len(study.programs())}: " if len(study.programs()) > 1 else ""
        say(f"{title}compiling ...")
        h = hyperparams_of(study.hyperparams, study.traced(points))
        with cli.waiting("compiling", quiet=not devices.is_first()):
            cut = plan(
                study, config, h, where, width=stored or width, fixed=bool(stored), limit=limit
            )
        if devices.is_first() and not stored:
            studies.write_setup(study, folder, cut.width, versions)
        stored = stored or cut.width
        say(described(cut, count, where))
        _run_group(study, folder, config, points, cut, max(0, done - first), how)
    return stored or None


def plan(
    study: Study,
    config: Config,
    hyperparams: Hyperparams,
    where: Layout,
    *,
    width: int | None,
    fixed: bool = False,
    limit: int | None,
) -> Plan:
    """The programs of one static setting. hyperparams: its points, leaves [G]."""
    num_points = len(hyperparams.learning_rate)
    return chunks.plan(
        config,
        execution.broadcast(hyperparams, num_points),
        num_points * len(study.seeds),
        where,
        width=width,
        fixed=fixed,
        budget=None if limit is None else memory.for_programs(limit),
        episodes=study.episodes,
        actions=(study.actions,),
        exact=study.exact,
    )


def described(cut: Plan, num_runs: int, where: Layout) -> str:
    """The plan, for people."""
    size = cut.programs.num_bytes * (len(jax.local_devices()) if where.mesh.size > 1 else 1)
    on = f"each of {where.mesh.size} device(s)" + f" of {jax.process_count()} processes" * (
        jax.process_count() > 1
    )
    return (
        f"{num_runs} runs in {-(-num_runs // cut.chunk)} chunks of {cut.chunk}, {cut.width} side "
        f"by side on {on}; {memory.readable(size)} for the programs, "
        f"{memory.readable(cut.bytes_per_run)} a run; compiled {cut.compilations}× in "
        f"{cut.programs.seconds:.1f} s"
    )


def finish(
    study: Study,
    folder: Path,
    where: Layout,
    how: Checkpointing,
    *,
    fresh_seeds: int,
    width: int | None,
    limit: int | None = None,
) -> bool:
    """Ranks the settings, draws them and tries the best on so many fresh seeds; prints and writes
    what came of it.

    Returns whether there is a mean return to report. Where every run diverged there is no best
    setting, and nothing is tried again.
    """
    ranked = report.rank(study, studies.read_runs(folder)) if devices.is_first() else []
    best = devices.agreed(ranked[0].setting if report.any_finite(ranked) else NO_BEST)
    if ranked:
        report.write(study, folder, ranked)
        print(report.table(study, ranked), flush=True)
    again = (
        fresh(study, folder, best, where, how, num_seeds=fresh_seeds, width=width, limit=limit)
        if fresh_seeds and best != NO_BEST
        else None
    )
    if ranked:
        folders.write_json(folder / "summary.json", report.summary(study, ranked, again))
        for sentence in report.verdict(study, ranked, again).splitlines():
            say(sentence)
        drawn = report.draw(study, folder, ranked)
        print(folder / "settings.csv", *drawn, sep="\n", flush=True)
        say(f"peak memory of this process: {memory.readable(memory.peak())}")
    return best != NO_BEST and (again is None or "mean" in again)


def fresh(
    study: Study,
    folder: Path,
    best: int,
    where: Layout,
    how: Checkpointing,
    *,
    num_seeds: int,
    width: int | None,
    limit: int | None,
) -> dict[str, Any]:
    """The summary of setting `best` on seeds beyond those of the study, whose run folder is
    FOLDER/best.
    """
    config, _ = next(group for group in study.programs() if best in group[1])
    seeds = range(study.seeds.stop, study.seeds.stop + num_seeds)
    h = hyperparams_of(study.hyperparams, study.traced(range(best, best + 1)))
    again = Study(config, study.hyperparams, {}, seeds, study.episodes, study.greedy, study.exact)
    cut = plan(again, config, h, where, width=width, limit=limit)
    keeping = _keeping(again, folder / "checkpoints", f"best-{best}", config, 0, how, where)
    keys = execution.seed_keys(seeds)
    done = list(chunks.chunks(cut, config, keys, chunks.crossed(h, num_seeds), keeping=keeping))
    states = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.states for chunk in done))
    metrics = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.metrics for chunk in done))
    evaluations = jax.tree.map(lambda *x: np.concatenate(x), *(chunk.evaluation for chunk in done))
    run = execution.Run(states, metrics, True, None, cut.programs.seconds, 0.0)
    if not devices.is_first():
        return writing.summarise(run, evaluations, seeds)
    place = folder / "best"
    files.make_folder(place)
    files.remove_leftovers(place)
    best_h = jax.tree.map(lambda x: np.ravel(x)[0].item(), h)
    options = {
        "seed": seeds.start,
        "seeds": len(seeds),
        "eval_episodes": study.episodes,
        "greedy": study.greedy,
    }
    folders.write_setup(place, config, best_h, options, folders.environment(where))
    return writing.write_results(place, run, evaluations, seeds)


def say(text: str) -> None:
    """Prints one paragraph, in the first process of a job, in lines that fit the terminal."""
    if devices.is_first():
        cli.say(text)


def _say_changes(study: Study, folder: Path, width: int, versions: Mapping[str, Any]) -> None:
    """Says what bits can depend on and is not as it was for the runs that are finished, and records
    it.
    """
    before = studies.stored_versions(folder)
    if changed := checkpoints.changes(before, versions):
        say(
            f"note: the runs to come may differ in bits from those that are finished, as "
            f"{'; '.join(changed)}"
        )
        resumed = [*before.get("resumed", []), {"changed": changed}]
        studies.write_setup(study, folder, width, {**versions, "resumed": resumed})


def _run_group(
    study: Study,
    folder: Path,
    config: Config,
    points: range,
    cut: Plan,
    start: int,
    how: Checkpointing,
) -> None:
    """The runs of one static setting from its run `start` on."""
    first, count = points.start * len(study.seeds), len(points) * len(study.seeds)
    seeds = np.arange(count) % len(study.seeds)
    train_keys, eval_keys = execution.seed_keys(study.seeds)
    keys = train_keys[seeds], eval_keys[seeds]
    h = chunks.crossed(hyperparams_of(study.hyperparams, study.traced(points)), len(study.seeds))
    left = -(-(count - start) // cut.chunk)
    progress = cli.Progress(left * config.num_updates, quiet=not devices.is_first())
    began, finished = time.monotonic(), 0

    def on_chunk(updates: int, seconds: float, metrics: Mapping[str, np.ndarray]) -> None:
        progress(finished * config.num_updates + updates, time.monotonic() - began, metrics)

    try:
        keeping = _keeping(
            study, folder / "checkpoints", "chunk", config, first, how, cut.programs.where
        )
        for chunk in chunks.chunks(
            cut, config, keys, h, start=start, on_chunk=on_chunk, keeping=keeping
        ):
            finished += 1
            if devices.is_first():
                studies.write_chunk(study, folder, first + chunk.start, chunk)
                _discard(folder / "checkpoints", "chunk-*")
            if finished == 1 and left > 1:
                took = time.monotonic() - began
                rest = tqdm.format_interval(took * (left - 1))
                say(f"first chunk in {took:.1f} s; about {rest} for the other {left - 1}")
    finally:
        progress.close()


def _keeping(
    study: Study,
    folder: Path,
    name: str,
    config: Config,
    first: int,
    how: Checkpointing,
    where: Layout,
) -> chunks.Keeping:
    """Chunks are kept in FOLDER/NAME-<first run>-<last run> while they are trained, and go on from
    there.

    first: of the runs of `config`, their number in the study.
    """
    like = jax.eval_shape(make_learner(config, study.hyperparams).init, jax.random.key(0))
    about = {"setup": study.to_json(), "versions": folders.environment(where)}

    def keeping(start: int, count: int) -> Any:
        columns = studies.labelled(study, first + start, count)
        place = (
            folder / f"{name}-{first + start:06}-{first + start + count - 1:06}"
            if devices.is_first()
            else None
        )
        found = None
        if place:
            files.make_folder(place, within=folder.parent)
            try:
                found = checkpoints.restore(place, like, about, count)
            except checkpoints.DamageError as error:
                say(f"{error}; these runs are begun anew")
                checkpoints.discard(place)
        for remark in found.said() if found else []:
            say(remark)
        begun = checkpoints.shared(found, like, count)
        keeper = how.keeper(place, about, columns, begun)

        def keep(done: int, states: Any, metrics: Any, last: bool) -> None:
            ended = done == config.num_updates  # what is finished is written elsewhere
            keeper(done, states, metrics, last and not ended)
            if ended:
                keeper.wait()

        return begun, keep

    return keeping


def _discard(folder: Path, pattern: str) -> None:
    """Removes the checkpoints in folders below one that is no link."""
    if not folder.is_symlink():
        for place in sorted(folder.glob(pattern)):
            checkpoints.discard(place)
