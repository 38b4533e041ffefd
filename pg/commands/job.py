"""The train command: a run in its folder, from the settings to the results, through interruptions.

RUN/
    config.json, versions.json           the settings, and the versions and devices (`folders`)
    checkpoints/                         states to resume from (`checkpoints`)
    metrics.parquet, params.safetensors, summary.json, curve.png, curve.svg    results
    best.safetensors, policy.gif         the best parameters, with --eval-every; a film, with --film
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg import numerals
from pg.commands import cli
from pg.commands.clock import Clock
from pg.config import (
    Config,
    Hyperparams,
    check_config,
    check_is_hyperparams,
    merge_env_params,
    own_parts,
)
from pg.estimators.names import candidate_names
from pg.inputs import check_seeds, count, described
from pg.parts import with_parts
from pg.reports import curves, drawings
from pg.runs import code, encoding, files, folders, interrupts
from pg.trackers import base as tracking

# fields of Config that may change when a run is resumed
MAY_CHANGE = ("num_updates", "on_nonfinite", "micro_batches")
OF_RESULTS = ("eval_episodes", "greedy", "film")  # options that matter once training has ended
SCHEDULES = ("schedule", "entropy_schedule", "epsilon_schedule")
BEGIN_ANEW = "there is no checkpoint yet: the same command starts again"
# Parts of the wall time of a run, as its summary calls them, in words.
_PARTS = {
    "start": "start",
    "compile": "compilation",
    "train": "training",
    "evaluate": "evaluation",
    "write": "writing",
}


@dataclasses.dataclass
class Options(cli.BorrowedSettings, cli.Following, cli.Checkpointing, cli.Length):
    """The settings of the train command, besides those of training."""

    seed: int = 0
    """Seed of the run; of several seeds, the first."""
    seeds: int = 1
    """Number of seeds, trained as vmapped runs of one program."""
    out: Path = Path("results")
    """Folder in which the run's folder is made."""
    name: str | None = None
    """Name of the run's folder; none: date and seed. The same command with the same name resumes
    the run.
    """
    resume: Path | None = None
    """Folder of a run to resume, with its settings; --num-updates may be larger than before, unless
    a schedule is annealed over the run.
    """
    strict: bool = False
    """Refuse to resume if bits may differ: under other versions, devices, flags or settings of jax.
    """
    allow_changed_code: bool = False
    """Resume even if files of your own parts have changed since; this is recorded."""
    eval_episodes: int = 100
    """Number of episodes of the final evaluation, per seed."""
    greedy: bool = False
    """Evaluate the mode of the policy instead of sampled actions."""
    verbose: bool = False
    """List all settings, and not only those that differ from the defaults."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        super().__post_init__()
        self.check_following()
        for name in ("seeds", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be a whole number of at least 1, got {getattr(self, name)}"
                )
        check_seeds("seed", self.seed, self.seeds)
        if self.name is not None and self.resume is not None:
            raise ValueError(
                "name and resume are mutually exclusive: resume continues in the folder it names"
            )


def run(
    config: Config,
    hyperparams: Hyperparams,
    options: Options | None = None,
    machine: cli.Machine | None = None,
    *,
    trackers: Sequence[tracking.Tracker] = (),
    **parts: Any,
) -> int:
    """Trains, evaluates and writes.

    Args:
        config: The static settings. For an environment object, from Python, the folder records the
            name of its class, and `resume` needs such an object again.
        hyperparams: The others.
        options: The options of the train command; default: those of `Options`.
        machine: Devices and processes; default: those of `cli.Machine`.
        trackers: Custom ones that follow the run, besides `options.log`; `resume` needs them
            again.
        parts: Custom `estimator`, `policy`, `critic` and `optimizer`, which replace those of
            `config`; `resume` needs them again.

    Returns:
        The exit code, as in `cli`: 2 for a mistake, 1 for a failed environment; both errors are
        printed.
    """
    clock = Clock()
    encoding.make_streams_readable()
    options, machine = options or Options(), machine or cli.Machine()
    if not interrupts.listen(cli.announce):
        cli.say(
            "this is not the main thread: signals do not end the run, which keeps its "
            "checkpoints anyway"
        )
    folder = None
    with contextlib.ExitStack() as stack:
        try:
            check_config(config)
            check_is_hyperparams(hyperparams)
            config = with_parts(config, **parts)
            _check_kind("options", options, Options)
            _check_kind("machine", machine, cli.Machine)
            if options.film:
                drawings.check(config.env)
            tracking.check(options.log)
            tracking.check_own(trackers)
            followers = tracking.Trackers([*tracking.load(options.log), *trackers], cli.say)
            stack.callback(followers.finish, None)
            config, hyperparams = merge_env_params(config, hyperparams)
            # jax is loaded only now, so that an unusable folder is reported at once
            if not machine.several:
                folder = _existing(config, hyperparams, options, stack)
            with interrupts.held("loading"), cli.waiting("loading"):
                machine.start()
                _load()
                if options.film:
                    drawings.check_first_frame(config.env)
            return _run(config, hyperparams, options, machine, folder, followers, stack, clock)
        except ValueError as error:
            return cli.mistake(cli.naming_command(error, _again(config, folder)))
        except _Told as error:
            return cli.interrupted(error.signum)
        except KeyboardInterrupt as error:
            if not machine.process_id:  # the first of several, or the only one
                cli.say(_interruption(config, folder))
            return cli.interrupted(interrupts.signal_of(error))
        except BrokenPipeError:  # about the reader of the output, not a process of the job
            raise
        except ConnectionError as error:
            cli.abandon(error)  # which ends the process
        except OSError as error:
            return cli.unwritten(error)


def resume(
    folder: Path | str,
    env: Any = None,
    *,
    estimator: Any = None,
    policy: Any = None,
    critic: Any = None,
    optimizer: Any = None,
    num_updates: int | None = None,
    strict: bool = False,
    allow_changed_code: bool = False,
    trackers: Sequence[tracking.Tracker] = (),
) -> int:
    """Resumes the run in a folder, with its settings, as `pg resume` does.

    Args:
        folder: The run's folder.
        env: The environment object, for a run that was given one.
        estimator: The function, or `FILE.py:NAME`, for a run that was given one.
        policy: The same for its policy.
        critic: The same for its critic.
        optimizer: The same for its optimizer.
        num_updates: More updates than before; None: as many.
        strict: See `Options`.
        allow_changed_code: See `Options`.
        trackers: See `run`.

    Returns:
        The exit code, as in `run`.
    """
    folder = Path(folder).expanduser()
    try:
        config, hyperparams = folders.read_setup(
            folder,
            env,
            parts={
                "estimator": estimator,
                "policy": policy,
                "critic": critic,
                "optimizer": optimizer,
            },
            allow_changed_code=allow_changed_code,
        )
        stored = folders.read_options(folder)
        if num_updates is not None:
            config = dataclasses.replace(config, num_updates=num_updates)
        options = Options(
            **cli.resumed(stored),
            resume=folder,
            strict=strict,
            allow_changed_code=allow_changed_code,
        )
        machine = cli.Machine.of_resumed(stored)
    except ValueError as error:
        encoding.make_streams_readable()
        return cli.mistake(error)
    return run(config, hyperparams, options, machine, trackers=trackers)


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        place = f"{kind.__module__}.{kind.__name__}"
        raise ValueError(f"{name} must be a {place}, got {described(value)}: write {place}(...)")


def _load() -> None:
    """Loads the libraries of a run."""
    import pyarrow.parquet  # noqa: F401
    import safetensors.numpy  # noqa: F401

    from pg.runs import checkpoints, execution, writing  # noqa: F401


def _run(
    config: Config,
    hyperparams: Hyperparams,
    options: Options,
    machine: cli.Machine,
    folder: Path | None,
    followers: tracking.Trackers,
    stack: contextlib.ExitStack,
    clock: Clock,
) -> int:
    import jax

    from pg import envs
    from pg.fast import devices
    from pg.runs import execution, host_states, memory
    from pg.train import make_learner

    seeds = range(options.seed, options.seed + options.seeds)
    env = envs.configured(config, 1)
    stack.enter_context(host_states.closing([config]))
    # as the state of training is the same in any number of micro-batches
    learner = make_learner(dataclasses.replace(config, micro_batches=1), hyperparams)
    template = jax.eval_shape(learner.init, jax.random.key(0))
    before = folders.num_devices(folder) if folder else None
    layout, on_devices = machine.layout(len(seeds), config.envs_at_once, template.params, before)
    layout.check(config)
    memory.check(config, env, template, len(seeds), options.eval_episodes)
    clock.end("start")
    config, in_parts = _in_micro_batches(config, hyperparams, seeds, options, layout, template)
    clock.end("compile")  # of the sizes that were tried
    num_runs = layout.round_up(len(seeds))
    way_of_resets = execution.way_of_resets(config, hyperparams, layout, num_runs)
    if devices.is_first():
        if folder is None:
            folder = _opened(config, options, hyperparams, stack)
        verbose = options.verbose
        print(_plan(config, hyperparams, env, template.params, verbose=verbose, **way_of_resets))
        _say_remarks(config, hyperparams, env, in_parts)
    metadata: dict[str, Any] = {
        "setup": _identity(config, hyperparams, options),
        "versions": folders.environment(layout) | host_states.about([config]) | way_of_resets,
    }
    partial = _restored(folder, config, hyperparams, template, metadata, seeds, layout, options)
    is_new = False
    if folder:
        if partial and (said := _ended(folder, partial.updates, config, options)):
            print(f"{said}\n{folder}")
            return 0
        files.remove(folder, r"summary\.json")  # without it a run has not ended
        is_new = not os.path.lexists(folder / "config.json")
        asked = dataclasses.asdict(options) | dataclasses.asdict(machine)
        folders.write_setup(folder, config, hyperparams, asked, metadata["versions"])
        _say_devices(seeds, layout, on_devices)
        steps_before = partial.metrics["env_steps"].sum(axis=1) if partial else 0
        followers.start(folder, seeds, folders.read_stored(folder), steps_before)
    place, hold = folder and folder / "checkpoints", host_states.can_fail(config)
    writer = options.checkpoint_writer(place, metadata, {"seed": seeds}, partial, hold=hold)
    how = {"layout": layout, "partial": partial, "on_checkpoint": writer}
    with _discarding_setup(folder if is_new else None), _with_resumption(config, folder, writer):
        done = _trained(config, hyperparams, seeds, options, followers, quiet=not folder, **how)
    clock.end("start", compile=done.compile_seconds, train=done.train_seconds)
    with _with_resumption(config, folder, writer):
        evaluations = _evaluations(config, done, seeds, options, layout, quiet=not folder)
        clock.end("evaluate")
        if machine.debug and folder:
            _explain(config, hyperparams, done, seeds)
        _film(config, hyperparams, done, options, folder)
    if folder:
        with interrupts.deferred("writing the results"):  # it takes about a second
            _finish(config, done, evaluations, seeds, options, folder, followers, clock)
    return cli.outcome(done)


@contextlib.contextmanager
def _with_resumption(config: Config, folder: Path | None, writer: Any) -> Iterator[None]:
    """Adds the command that resumes the run to the error of a failed environment, see
    `host_states.with_resumption`; after a signal prints it.
    """
    from pg.envs.adapters.hosts import HostError
    from pg.runs import host_states

    try:
        yield
    except HostError as error:
        command = _resumption_when_mended(config, folder) if folder else ""
        raise host_states.with_resumption(error, writer, command, BEGIN_ANEW) from None
    except KeyboardInterrupt as error:
        if folder:
            cli.say(_interruption(config, folder))
        raise _Told(interrupts.signal_of(error)) from None


def _resumption_when_mended(config: Config, folder: Path) -> str:
    """The command that resumes a run once the failed environment is fixed."""
    return f"pg resume {code.resumption(folder, config, allow_changed_code=True)}"


def _again(config: Config, folder: Path | None) -> str:
    """A sentence on the command that continues or restarts a run after an environment failed before
    the run's first update.

    folder: one that existed before; None: none.
    """
    if folder is None or not folders.has_updates(folder):
        return BEGIN_ANEW
    return f"{_resumption_when_mended(config, folder)} continues it"


class _Told(interrupts.Interrupted):
    """A signal whose message already says how to continue."""


def _interruption(config: Config, folder: Path | None) -> str:
    """A sentence on a signal before the results of a run were written, with the way to continue.

    folder: of the run; None: it has none yet.
    """
    unstarted = "interrupted before the first update: nothing is trained yet"
    if folder is None or not os.path.lexists(folder / "config.json"):
        return f"{unstarted}, and the same command starts again"
    again = code.resumption(folder, config)
    if not folders.has_updates(folder):
        return f"{unstarted}; start again with pg resume {again}"
    return (
        "interrupted before the results were written; the updates so far are kept: continue with "
        f"pg resume {again}"
    )


def _say_devices(seeds: range, layout: Any, remark: str) -> None:
    """Prints on which devices the seeds are about to be compiled, after a remark on them, or ""."""
    import jax

    if remark:
        cli.say(remark)
    device = f"{layout.mesh.size} × {jax.devices()[0].device_kind}"
    of_seeds = numerals.counted(len(seeds), "seed")
    cli.say(f"{of_seeds} from {seeds.start}, on {device}; compiling ...")


def _say_remarks(config: Config, hyperparams: Hyperparams, env: Any, in_parts: str) -> None:
    """Prints the remarks on a run that are not part of its plan.

    env: Environments like those of the run. in_parts: See `_in_micro_batches`.
    """
    from pg import images
    from pg.runs import effects, host_states

    remarks = images.image_description(config, env), in_parts, host_states.promise(config)
    for sentence in remarks:
        if sentence:
            cli.say(sentence)
    given = effects.changed(config, hyperparams)
    if unused := effects.without_effect(config, hyperparams, given):
        cli.say(effects.remark(unused, config.title))


def _in_micro_batches(
    config: Config,
    hyperparams: Hyperparams,
    seeds: range,
    options: Options,
    layout: Any,
    template: Any,
) -> tuple[Config, str]:
    """The settings with as few micro-batches as fit into memory, if the number is to be chosen, and
    a sentence on them. A resumed run keeps its number, and so its bits, if that fits.

    template: See `memory.check`.
    """
    if config.micro_batches != "auto":
        return config, ""
    from pg import envs
    from pg.fast import devices
    from pg.runs import execution, memory, periodic

    wanted = plan(options) or periodic.Plan(episodes=0)
    n = layout.round_up(len(seeds))
    env = envs.configured(config, 1)
    with cli.waiting("fitting a batch into memory", quiet=not devices.is_first()):
        found = execution.fitted(
            config,
            execution.broadcast(hyperparams, n),
            layout,
            n,
            episodes=wanted.episodes,
            actions=(wanted.actions,),
            least=lambda settings: memory.least(settings, env, template, n),
            first=devices.agreed(_micro_batches_before(config, options)),
        )
    size = config.num_envs // found.micro_batches
    of_part = numerals.counted(size, "environment")
    parts = f"{found.micro_batches} micro-batches of {of_part}"
    if found.micro_batches == 1:
        parts = "one batch"
    return dataclasses.replace(config, micro_batches=found.micro_batches), (
        f"{parts}: {memory.readable(found.num_bytes)} for the programs, of "
        f"{memory.readable(found.budget)}; compiled {found.compilations}×"
    )


@contextlib.contextmanager
def _discarding_setup(folder: Path | None) -> Iterator[None]:
    """Removes the settings from the folder of a run that fails before its first update, as the
    corrected run would be refused in it. None: no folder, or one that had settings before.
    """
    try:
        yield
    except OSError:  # the same command continues, once there is room
        raise
    except Exception:
        if folder and not folders.has_updates(folder):
            folders.discard_setup(folder)
        raise


def _trained(
    config: Config,
    hyperparams: Hyperparams,
    seeds: range,
    options: Options,
    followers: tracking.Trackers,
    *,
    quiet: bool,
    **how: Any,
) -> Any:
    """The training of a run, with a progress line and the trackers.

    how: see `execution.run`. quiet: in processes that do not write.
    """
    from pg.runs import execution

    progress = cli.Progress(
        config.num_updates, quiet=quiet, may_end=options.stop_at_return is not None
    )

    def on_chunk(done: int, seconds: float, metrics: Mapping[str, Any]) -> None:
        progress(done, seconds, metrics)
        if not quiet:
            followers.log(done, metrics)

    with contextlib.closing(progress):
        how |= {"plan": plan(options), "on_compiled": progress.begin}
        return execution.run(config, hyperparams, seeds, on_chunk, **how)


def plan(options: Options) -> Any:
    """The evaluations during training, a `periodic.Plan`; None if none are wanted."""
    from pg.runs import periodic

    if options.eval_every is None and options.eval_minutes is None:
        return None
    return periodic.Plan(
        every=options.eval_every,
        minutes=options.eval_minutes,
        episodes=options.eval_episodes,
        greedy=options.greedy,
        stop_at_return=options.stop_at_return,
    )


def _evaluations(
    config: Config, done: Any, seeds: range, options: Options, layout: Any, *, quiet: bool
) -> dict[str, Any]:
    """The final evaluation of a run, under "sampled" or "greedy", and that of its best parameters,
    under "best", on the same episodes, which have not selected them; {} if a signal ended it.
    """
    from pg.runs import execution

    if done.signum:
        return {}
    policies = {"greedy" if options.greedy else "sampled": done}
    if done.best is not None:
        policies["best"] = done.with_params(done.best.params, done.best.normaliser)
    episodes, greedy = options.eval_episodes, options.greedy
    with cli.waiting("evaluating", quiet=quiet):
        return {
            name: execution.evaluate_run(
                config, policy, seeds, episodes, greedy=greedy, layout=layout
            )
            for name, policy in policies.items()
        }


def _film(
    config: Config, hyperparams: Hyperparams, done: Any, options: Options, folder: Path | None
) -> None:
    """Draws an episode of the first seed, as `pg render` does, if a film is requested and no signal
    ended the run.
    """
    if folder is None or done.signum or not options.film:
        return
    import jax

    from pg.envs.adapters.hosts import HostError

    shown = done.states if done.best is None else done.best
    params, normaliser = jax.tree.map(lambda x: x[0], (shown.params.policy, shown.normaliser))
    with cli.waiting("drawing"):
        try:
            film = drawings.film(
                config,
                params,
                jax.random.key(options.seed),
                normaliser=normaliser,
                env_params=hyperparams.env_params,
                greedy=options.greedy,
            )
        except HostError as error:  # the results are still to be written
            cli.say(f"there is no film: {error}")
            return
        drawings.animate(film, folder / "policy.gif")
        drawings.strip(film, folder / "policy.gif")


def _plan(config: Config, hyperparams: Hyperparams, env: Any, params: Any, **how: Any) -> str:
    """The plan of a run with environments and parameters like these. how: See `cli.describe`."""
    from pg import envs, networks

    space = env.action_space
    return cli.describe(
        config,
        hyperparams,
        env.horizon(),
        networks.num_params(params),
        num_actions=space.n if isinstance(space, envs.Discrete) else 1,
        **how,
    )


def _opened(
    config: Config, options: Options, hyperparams: Hyperparams, stack: contextlib.ExitStack
) -> Path:
    """The folder of the run, locked: the named one, or a new one."""
    folder = _existing(config, hyperparams, options, stack)
    if folder is None:
        folder = folders.create(options.out, config, options.seed)
    if not (options.name or options.resume):
        stack.enter_context(folders.locked(folder, of_run=True))
    return folder


def _finish(
    config: Config,
    done: Any,
    evaluations: Mapping[str, Any],
    seeds: range,
    options: Options,
    folder: Path,
    followers: tracking.Trackers,
    clock: Clock,
) -> None:
    """Writes metrics and parameters, draws, writes the summary, gives it to the trackers, and
    prints it. evaluations: {} where interrupted.
    """
    from pg.reports import plots
    from pg.runs import results, writing

    title = config.title

    def draw(summary: Mapping[str, Any]) -> None:
        final = summary.get("mean")
        plots.learning_curve(
            done.metrics,
            folder / "curve.png",
            title=title,
            final=final,
            on_nonfinite=done.on_nonfinite,
        )
        if config.diagnostics:
            quality = curves.gradient_quality(done.metrics)
            plots.gradient_quality(quality, folder / "gradient.png", title=title)

    def seconds() -> Mapping[str, float]:
        clock.end("write")
        return clock.seconds

    summary = writing.write_results(folder, done, evaluations, seeds, draw, seconds)
    parts = ", ".join(f"{word} {clock.seconds[part]:.1f}" for part, word in _PARTS.items())
    steps = numerals.counted(summary["env_steps"], "environment step")
    cli.say(f"{steps}; {sum(clock.seconds.values()):.1f} s: {parts}")
    for text in results.describe_failures(summary, done.metrics, config.on_nonfinite):
        cli.say(text)
    if summary.get("mean") is not None:
        say_evaluation(summary, "final evaluation")
    if summary.get("best"):
        of_best = summary["best"] | {"actions": summary["actions"]}
        say_evaluation(of_best, "best parameters, on the same episodes")
    planned = numerals.counted(config.num_updates, "update")
    if done.reached:
        cli.say(
            f"ended after {summary['num_updates']:,} of {planned}, as the "
            f"evaluation of every seed had a return of at least {options.stop_at_return:g}"
        )
    if config.diagnostics and not results.failed_runs(done.metrics, done.on_nonfinite).all():
        # if all runs have stopped, there is no end of training
        _say_noise_scale(config, curves.final_noise_scale(done.metrics))
        _say_explained_variance(curves.final_explained_variance(done.metrics))
    if "selected" in done.metrics:
        cli.say(selected_shares(candidate_names(config.estimator), done.metrics["selected"]))
    if done.signum:
        done_so_far = f"{summary['num_updates']:,} of {planned}"
        again = code.resumption(folder, config)
        cli.say(f"interrupted after {done_so_far}; continue with pg resume {again}")
    followers.finish(folders.jsonable(summary))
    print(folder)


def selected_shares(names: Sequence[str], selected: np.ndarray) -> str:
    """A sentence on how often each candidate was chosen, the most frequent first.

    Args:
        names: The candidates' names, in the order of their numbers.
        selected: The number of the chosen one, for each run and update, [S, U].
    """
    shares = {name: float(np.mean(selected == i)) for i, name in enumerate(names)}
    ranked = sorted(shares, key=lambda name: -shares[name])
    return f"selected: {', '.join(f'{name} {100 * shares[name]:.0f} %' for name in ranked)}"


def say_evaluation(summary: Mapping[str, Any], name: str) -> None:
    """Prints the evaluation of a summary under a name."""
    # The error of a single episode, or of a single remaining seed, is NaN, shown as a dash.
    score = f"{numerals.plus_minus(summary['mean'], summary['standard_error'])} (standard error)"
    parts = [score]
    if "median_of_seeds" in summary:
        parts.append(f"median of seeds {numerals.number(summary['median_of_seeds'])}")
    parts.append(f"min {numerals.number(summary['min'])}, max {numerals.number(summary['max'])}")
    scores = numerals.typed(", ".join(parts))
    episodes = numerals.counted(summary["episodes"], "episode")
    cli.say(f"{name}, {episodes}, {summary['actions']} actions: {scores}")


def _say_noise_scale(config: Config, noise_scale: float) -> None:
    """Prints the gradient noise scale of the last tenth of the training."""
    if math.isnan(noise_scale):
        text = "— (every gradient is 0)"
    elif math.isinf(noise_scale):
        text = "no signal above the noise"
    else:
        unit = "episodes" if config.collect == "episodes" else "environments of a window"
        text = f"{numerals.typed(numerals.number(noise_scale, 3))} {unit}"
    cli.say(f"gradient noise scale at the end: {text}; a batch has {config.num_envs}")


def _say_explained_variance(explained: float | None) -> None:
    """Prints the explained variance of the last tenth of the training; None: there is no V."""
    if explained is None:
        return
    text = "— (all targets are equal)"
    if not math.isnan(explained):
        text = numerals.typed(numerals.number(explained, 2))
    cli.say(f"explained variance of V at the end: {text}")


def _explain(config: Config, hyperparams: Hyperparams, done: Any, seeds: range) -> None:
    """Prints which operation gave the first number that was not finite, in a run that stopped
    before it.
    """
    import jax

    from pg.runs import execution, results
    from pg.seeds import seed_key

    for i, failure in enumerate(results.first_failures(done.metrics)):
        if failure and config.on_nonfinite == "stop":
            state = jax.tree.map(lambda x, i=i: x[i], done.states)
            key = seed_key(seeds[i])
            said = execution.explained(config, hyperparams, state, key, failure[0])
            cli.say(f"seed {seeds[i]}, update {failure[0]}: {said}")
            return


def _existing(
    config: Config, hyperparams: Hyperparams, options: Options, stack: contextlib.ExitStack
) -> Path | None:
    """The named folder, locked; None: a new one is wanted. Raises ValueError if it holds another
    run.
    """
    if options.resume is not None:
        folder = options.resume.expanduser().resolve()
        there: Mapping[str, Any] | None = _stored_identity(folder, config, options)
    elif options.name is not None:
        folder = folders.named(options.out, config, options.name)
        there = (
            _stored_identity(folder, config, options)
            if os.path.lexists(folder / "config.json") and folders.has_updates(folder)
            else None
        )
    else:
        return None
    stack.enter_context(folders.locked(folder, of_run=True))
    files.remove_leftovers(folder)
    if there is None:
        return folder
    folders.check_command(folder, "train.py")
    here = folders.jsonable(_identity(config, hyperparams, options))
    if differences := folders.differing(there, here):
        raise ValueError(f"{folder} holds another run: {'; '.join(differences)}")
    before = _stored(folder, config, options)[0].num_updates
    if before != config.num_updates and (
        moving := [x for x in SCHEDULES if getattr(config, x) != "constant"]
    ):
        raise ValueError(_other_length(folder, before, config, moving[0]))
    return folder


def _other_length(folder: Path, before: int, config: Config, schedule: str) -> str:
    """The error for another number of updates than `before`, if a schedule depends on it."""
    instead = (
        f"start another run from its policy, --init-from {folder}, or give "
        f"--{schedule.replace('_', '-')} constant to a run that is to be lengthened"
    )
    if config.num_updates < before:
        instead = (
            f"for fewer, start another run with --num-updates {config.num_updates}, or end this "
            "one with Ctrl-C, which writes its results"
        )
    value = getattr(config, schedule)
    return f"num_updates must stay {before}, as {schedule}={value!r} depends on it: {instead}"


def _identity(config: Config, hyperparams: Hyperparams, options: Options) -> dict[str, Any]:
    """The settings that identify a run: a folder can be resumed only with these."""
    fixed = {name: value for name, value in config.to_json().items() if name not in MAY_CHANGE}
    return {
        "config": fixed,
        "hyperparams": hyperparams.scalars(),
        "seed": options.seed,
        "seeds": options.seeds,
    }


def _stored(folder: Path, config: Config, options: Options) -> tuple[Config, Hyperparams]:
    """The settings of the run in a folder. config: that of the current run, which has the parts."""
    parts = own_parts(config)
    return folders.read_setup(
        folder,
        parts.pop("env", None),
        parts=parts,
        allow_changed_code=options.allow_changed_code,
    )


def _stored_identity(folder: Path, here: Config, options: Options) -> Mapping[str, Any]:
    config, hyperparams = _stored(folder, here, options)
    stored = folders.read_options(folder)
    before = Options(seed=stored.get("seed", 0), seeds=stored.get("seeds", 1))
    return folders.jsonable(_identity(config, hyperparams, before))


def _micro_batches_before(config: Config, options: Options) -> int:
    """The number of micro-batches of the run that is resumed; 1 if there is none, or in other
    processes than the first.
    """
    from pg.fast import devices

    if not devices.is_first():
        return 1
    folder = options.resume and options.resume.expanduser()
    if options.name is not None:
        folder = folders.named(options.out, config, options.name)
    if folder is None or not folders.has_updates(folder):
        return 1
    return _micro_batches_of(folder)


def _micro_batches_of(folder: Path) -> int:
    """The number of micro-batches of the run in a folder; older releases had one."""
    settings = folders.read_config(folder)["config"]
    return count("micro_batches", settings.get("micro_batches", 1))


def _restored(
    folder: Path | None,
    config: Config,
    hyperparams: Hyperparams,
    template: Any,
    metadata: dict[str, Any],
    seeds: range,
    layout: Any,
    options: Options,
) -> Any:
    """The part of the run that is done, in all processes; None: nothing. Adds to `metadata` the
    versions, devices, micro-batches and code that have changed since.

    Raises ValueError if more updates are done than requested, and with `strict` if something has
    changed.
    """
    from pg.fast import devices
    from pg.runs import checkpoints, execution, host_states

    found = None
    if folder and (folder / "checkpoints").is_dir():
        found = checkpoints.restore(folder / "checkpoints", template, metadata, len(seeds))
    done = devices.agreed(found.partial.updates if found else 0)
    if done > config.num_updates:
        are = numerals.agreeing(done, "is", "are")
        raise ValueError(
            f"num_updates must be at least the {done} that {are} done, got {config.num_updates}"
        )
    if folder and found:
        before = folders.read_json(folder / "config.json", folders.SETUP).get("parts", {})
        of_batch = folders.differing(
            {"micro_batches": _micro_batches_of(folder)}, {"micro_batches": config.micro_batches}
        )
        keys = execution.filled_up(execution.seed_keys(seeds)[0], layout.round_up(len(seeds)))
        found = host_states.taken_up(config, hyperparams, found, keys)
        changed = [*found.changed, *of_batch, *code.changes(before, config)]
        found = found._replace(changed=changed)
        if found.changed and options.strict:
            raise ValueError(
                f"its software or devices have changed, so that bits may differ: "
                f"{'; '.join(found.changed)}"
            )
        for remark in found.messages():
            cli.say(remark)
        before = folders.read_json(folder / "versions.json", folders.VERSIONS).get("resumed", [])
        after = {"after": found.partial.updates, "changed": found.changed}
        metadata["versions"] = metadata["versions"] | {"resumed": [*before, after]}
    return checkpoints.shared(found, template, len(seeds))


def _ended(folder: Path, updates: int, config: Config, options: Options) -> str | None:
    """A sentence on a run that has ended with all its results written; None if there is more to do.

    updates: those that are done. Raises ValueError for an invalid summary.
    """
    path = folder / "summary.json"
    if not os.path.lexists(path):
        return None
    summary = folders.read_json(path, {"status": str, "num_updates": int})
    if summary["num_updates"] != updates:
        return None
    before = folders.read_options(folder)
    if summary["status"] == "finished" and updates == config.num_updates:
        done = numerals.counted(updates, "update")
        stored = dataclasses.asdict(options) | before
        is_other = any(getattr(options, name) != stored[name] for name in OF_RESULTS)
        remedy = "; pg evaluate makes another evaluation, and pg render a film" if is_other else ""
        return f"it has all of its {done}: give --num-updates to continue{remedy}"
    target = options.stop_at_return
    is_same = target is not None and target == before.get("stop_at_return")
    if summary["status"] == "reached" and is_same:
        return (
            f"it ended after {numerals.counted(updates, 'update')}, as it had a return of "
            f"at least {target:g}: give --stop-at-return None, or a higher one, to continue"
        )
    return None
