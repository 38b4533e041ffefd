"""Command lines: every field of Config and Hyperparams as a flag, its docstring as the help text.

Imports neither jax nor gymnax, so that `--help` and a mistake answer at once.
"""

import ast
import contextlib
import contextvars
import dataclasses
import functools
import os
import re
import signal
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from pg import __version__, numerals
from pg.commands import clock, flags, settings_files
from pg.commands.flags import assignment as assignment
from pg.commands.options import BorrowedSettings as BorrowedSettings
from pg.commands.options import Checkpointing as Checkpointing
from pg.commands.options import Following as Following
from pg.commands.options import Length as Length
from pg.commands.options import Machine as Machine
from pg.commands.options import OwnParts as OwnParts
from pg.commands.options import OwnPolicy as OwnPolicy
from pg.commands.options import SettingsFile
from pg.commands.terminal import WIDTH, outlive_readers, wrapped
from pg.commands.terminal import Progress as Progress
from pg.commands.terminal import waiting as waiting
from pg.commands.values import (
    check_one_value,
    checked_line,
    is_flag,
    is_positional,
    name_of,
    words_of,
)
from pg.config import (
    PARTS,
    Config,
    Hyperparams,
    check_env,
    check_hyperparams,
    check_together,
    own_parts,
    part_name,
)
from pg.envs.adapters.hosts import HostError
from pg.estimators.names import check_estimator, facts_of
from pg.estimators.variants import VARIANTS, described
from pg.inputs import nearest
from pg.presets import preset
from pg.runs import encoding, folders, interrupts, migrations, sources
from pg.settings import own_files
from pg.settings.choices import RESAMPLING
from pg.settings.parts import resolved
from pg.settings.stored_params import FIELDS as STORED

# Exit codes; 74 and 75 are sysexits' EX_IOERR and EX_TEMPFAIL.
FAULT = 1  # the Python code of an environment failed
MISTAKE = 2  # in the arguments, or a folder that cannot be used
NOT_FINITE = 3  # a run stopped: a number was not finite, or no action was legal at a step
CANNOT_WRITE = 74  # the disk is full or read-only
AGAIN = 75  # preempted by SIGTERM or SIGUSR1, or a process was lost: rerun the command to resume
INTERRUPTED = 130  # Ctrl-C, the convention of shells


# True where --traceback is among the words of the command.
_traceback: contextvars.ContextVar[bool] = contextvars.ContextVar("traceback", default=False)

# Names of the settings that are flags of the command.
_typed: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "typed", default=frozenset()
)

# Options that a resumed run keeps.
RESUMED = (
    "seed",
    "seeds",
    "eval_episodes",
    "greedy",
    "eval_every",
    "eval_minutes",
    "stop_at_return",
    "film",
    "log",
    "settings_of",
)

# Renamed flags, with their current names.
_RENAMED: dict[str, tuple[str, ...]] = {
    **{
        old.strip("_").replace("_", "-"): (new.replace("_", "-"),)
        for names in migrations.RENAMED.values()
        for old, new in names.items()
    },
    "memory": ("rnn", "memory-limit"),
    "draw": ("search-seed",),
    "points": ("trials",),
}
# Flags of other command lines that exist here in another form.
_INSTEAD = {
    "v": "--verbose lists all settings of a run, and --version is the version",
    **dict.fromkeys(
        ("device", "gpu", "cuda", "platform"),
        "JAX_PLATFORMS=cpu or cuda in front of the command chooses",
    ),
    **dict.fromkeys(
        ("track", "tracker", "wandb", "tensorboard", "mlflow", "aim"),
        "pg train --log wandb follows a run, and so do tensorboard, mlflow and aim; its metrics "
        "are metrics.parquet in its folder",
    ),
}
_DRY_RUN = ("dry-run", "dryrun")  # --print-config comes nearest, in the commands that have it


def parse(
    prog: str | None, description: str, options: type, argv: Sequence[str] | None = None
) -> tuple[Config, Hyperparams, Any, Machine]:
    """The first four results of `parse_given`."""
    return parse_given(prog, description, options, argv)[:4]


def parse_given(
    prog: str | None, description: str, options: type, argv: Sequence[str] | None = None
) -> tuple[Config, Hyperparams, Any, Machine, frozenset[str] | None]:
    """Config, Hyperparams, `options` (a dataclass of the script's own flags) and Machine from the
    command line; and the names of the settings that it or its file gives, None if the file is a
    run's, which gives all of them.

    Defaults are the preset of the named estimator and environment, with --settings-of NAME that of
    NAME, or, with --resume RUN or --config RUN, the settings of that run. The entries of any other
    settings file count as flags before the others, and the settings of a named variant count as
    given. Exits with code 2 and one sentence on a mistake.
    """
    _prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    file, argv = _with_file(argv, (Config, Hyperparams, options, Machine))
    _choose_devices_for_files(argv)
    # a script's flag hides a setting of the same name
    own = {field.name for field in dataclasses.fields(options)}
    defaults, of_machine = options(), Machine()
    variant = None
    argv = [*(_estimator_of_over(argv) if "over" in own else []), *argv]
    try:
        run = _named(argv, "resume") if "resume" in own else None
        settings_of = _settings_of(argv, is_new=not (run or (file and file.run)))
        if run:
            config, hyperparams = _stored(Path(run), argv)
            stored = folders.read_options(Path(run))
            defaults = options(**resumed(stored))
            of_machine = Machine.of_resumed(stored)
        elif file and file.run:
            config, hyperparams = file.run
            if "resume" in own:  # the train command, which made the run
                defaults = options(**resumed(file.options))
                of_machine = Machine.of_resumed(file.options)
        else:
            config, hyperparams = _preset(argv, settings_of)
            variant = _named(argv, "estimator")
    except ValueError as error:
        fail(error)
    of_variant = VARIANTS.get(variant or "", {})
    if of_variant:  # its settings are part of the preset
        argv = _with_value(argv, "estimator", of_variant["estimator"])
    known = {
        **flags.flags_of(Config, config, own),
        **flags.flags_of(Hyperparams, hyperparams, own),
        **flags.flags_of(options, defaults),
        **flags.flags_of(Machine, of_machine),
        **flags.flags_of(SettingsFile, SettingsFile()),
    }
    with _pointing_at(file):
        groups = _read(flags.grouped(known), known, description, argv, prog)
    values = {name: value for group in groups.values() for name, value in vars(group).items()}
    values["settings_of"] = defaults.settings_of if run else settings_of
    of_config = flags.values_of(Config, values, own)
    of_hyperparams = flags.values_of(Hyperparams, values, own)
    try:
        config = dataclasses.replace(config, **sources.given(of_config), preset=None)
        if (total_steps := values.get("total_steps")) is not None:
            if _named(argv, "num-updates"):
                raise ValueError("total_steps and num_updates are mutually exclusive: give one")
            config = config.lasting(total_steps)
        hyperparams = check_hyperparams(hyperparams._replace(**of_hyperparams))
        check_together(config, hyperparams)
        chosen = options(**flags.values_of(options, values))
        _check_env_is_not_varied(variant, settings_of, chosen)
        machine = Machine(**flags.values_of(Machine, values))
    except ValueError as error:
        fail(error)
    if values["print_config"]:
        usual = Config(env=config.env, estimator=config.estimator).to_json()
        values = config.to_json() | own_files.references(own_parts(config))
        values |= {name: stored.origin for name in STORED if (stored := getattr(config, name))}
        values |= hyperparams.scalars() | vars(chosen) | vars(machine)
        if chosen.total_steps is not None:
            del values["num_updates"]  # which follows from it
        _print_settings(values, usual)
    named = {name_of(word).removeprefix("no_") for word in argv if is_flag(word)}
    given = None if file and file.run else frozenset(named | of_variant.keys())
    return config, hyperparams, chosen, machine, given


def _check_env_is_not_varied(estimator: str | None, settings_of: str | None, options: Any) -> None:
    """Raises ValueError if the options of a sweep vary the environment although the settings, those
    of a variant or of `settings_of`, were tuned for one.
    """
    if not any(text.startswith("env=") for text in getattr(options, "over", ())):
        return
    if estimator in VARIANTS:
        raise ValueError(
            f"estimator {estimator!r} has the settings of one environment, and env is varied: vary "
            f"env with {described(estimator)}"
        )
    if settings_of is not None:
        raise ValueError(
            f"settings_of {settings_of!r} has the settings of one environment, and env is varied: "
            "give one command for each environment"
        )


def resumed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a resumed run keeps, among all in its folder."""
    return {name: stored[name] for name in RESUMED if name in stored}


def _with_file(
    argv: list[str], kinds: Sequence[type]
) -> tuple[settings_files.Entries | None, list[str]]:
    """The file of settings that --config names, and the command line with its entries in front."""
    path = _named(argv, "config")
    if path is None:
        return None, argv
    try:
        if _named(argv, "resume"):
            raise ValueError(
                "config and resume are mutually exclusive: resume uses the settings of its run"
            )
        parts = {name: part for name in PARTS if (part := _named(argv, name)) is not None}
        file = settings_files.read(Path(path), parts)
        given = [name_of(word) for word in argv if is_flag(word)]
        return file, [*settings_files.words(file, kinds, given), *argv]
    except ValueError as error:
        fail(error)


@contextlib.contextmanager
def _pointing_at(file: settings_files.Entries | None) -> Iterator[None]:
    """Adds to the parser's report of a mistake that the flag may be an entry of a file."""
    try:
        yield
    except SystemExit as stopped:
        if stopped.code and file:
            print(f"the entries of {file.path} are read as flags", file=sys.stderr)
        raise


def _print_settings(values: Mapping[str, Any], usual: Mapping[str, Any]) -> NoReturn:
    """Prints settings as a file that --config reads, and exits.

    Args:
        values: All settings, by name.
        usual: Those that a file without an entry has; None for those that it does not name.
    """
    settings = {
        name: value
        for name, value in values.items()
        if name != "resume" and not (value is None and usual.get(name) is None)
    }
    print(settings_files.written(settings, f"settings of pg {__version__}, for --config"))
    raise SystemExit(0)


_Options = TypeVar("_Options")


def options(
    kind: type[_Options],
    description: str,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    *,
    with_file: bool = False,
) -> _Options:
    """A dataclass of flags from the command line, for commands without settings; exits as `parse`
    does.

    Args:
        kind: The dataclass.
        description: The paragraphs above the flags in the help.
        argv: The command line; none: that of this process.
        prog: The name of the command in its help; none: that of the file.
        with_file: The flags may come from a file of settings.
    """
    _prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    _choose_devices_for_files(argv)
    known = flags.flags_of(kind, _defaults(kind))
    file = None
    if with_file:
        file, argv = _with_file(argv, (kind,))
        known |= flags.flags_of(SettingsFile, SettingsFile())
    with _pointing_at(file):
        values = _read(flags.ungrouped(known), known, description, argv, prog)
    try:
        chosen = kind(**flags.values_of(kind, values))
    except ValueError as error:
        fail(error)
    if with_file and values["print_config"]:
        _print_settings(vars(chosen), {})
    return chosen


def _defaults(kind: type) -> Any:
    """The defaults of a dataclass as attributes; fields without a default are left out."""
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(kind)
        if field.default is not dataclasses.MISSING
    }
    return types.SimpleNamespace(**defaults)


def docstring_of(script: str) -> str:
    """Returns the docstring of a file, which `python -OO` strips from the running program."""
    return ast.get_docstring(ast.parse(Path(script).read_text(encoding="utf-8"))) or ""


def _prepare_streams() -> None:
    """Lets a script write to any console, and continue without one."""
    encoding.make_streams_readable()
    outlive_readers()


def _read(
    kind: type,
    known: Mapping[str, flags.Flag],
    description: str,
    argv: list[str],
    prog: str | None = None,
) -> dict[str, Any]:
    """The fields of a dataclass of flags, read from the command line.

    Args:
        kind: The dataclass.
        known: All flags, by name.
        description: The paragraphs above the flags in the help.
        argv: The command line.
        prog: The name of the command; none: that of the file.
    """
    annotations = {name: flag.annotation for name, flag in known.items()}
    without_flag = [name for name, annotation in annotations.items() if is_positional(annotation)]
    _check_flags(argv, [name for name in known if name not in without_flag], without_flag)
    required = [name for name, flag in known.items() if flag.default is flags.REQUIRED]
    try:
        argv = checked_line(argv, annotations, required)
    except ValueError as error:
        fail(error)
    with _colours():
        parsed: Any = tyro.cli(kind, prog=prog, description=_paragraphs(description), args=argv)
    return vars(parsed)


def _check_flags(argv: list[str], names: Collection[str], without_flag: Sequence[str]) -> None:
    """Prints the version if requested; exits with one sentence at an unknown flag.

    Args:
        argv: The command line.
        names: The names of the flags.
        without_flag: Those of the values that have none.
    """
    if "--version" in argv:
        print(f"pg {__version__}")
        raise SystemExit(0)
    if {"-h", "--help"} & set(argv):
        return
    known = [name.strip("_").replace("_", "-") for name in names]
    for word in argv:
        flag = word.partition("=")[0]
        name = name_of(word).replace("_", "-")
        if not is_flag(flag) or name.removeprefix("no-") in known or name.startswith("tyro-"):
            continue
        renamed = [new for new in _RENAMED.get(name, ()) if new in known]
        near = [f"--{new}" for new in renamed or nearest(name, [*known, "help", "version"])]
        hint = _INSTEAD.get(name) or (
            f"did you mean {' or '.join(near)}?" if near else "--help lists all"
        )
        if name in without_flag:
            hint = f"write {name.upper()} without it"
        if name in _DRY_RUN and "print-config" in known:
            hint = "--print-config prints all settings, and trains nothing"
        fail(f"there is no flag {flag}: {hint}")


@contextlib.contextmanager
def _colours() -> Iterator[None]:
    """Makes the parser write without colours if NO_COLOR asks for it; it only detects terminals
    without colours.
    """
    before = os.environ.get("TERM")
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        os.environ.pop("TERM", None)
        if before is not None:
            os.environ["TERM"] = before


def _paragraphs(text: str) -> str:
    """A docstring whose paragraphs fit the terminal; the parser does not join indented lines."""
    return "\n\n".join(
        wrapped(" ".join(part.split()), otherwise=80) for part in text.strip().split("\n\n")
    )


def _preset(argv: list[str], settings_of: str | None) -> tuple[Config, Hyperparams]:
    """The preset of the estimator and the environment that are named.

    settings_of: the name whose preset a custom estimator has; None: its own. The estimator itself
    replaces that one with the other flags.
    """
    check_one_value(argv, "estimator")  # a variant replaces all of them by its estimator
    parts = {name: _named(argv, name) or getattr(Config, name) for name in ("estimator", "env")}
    for name, check in (("estimator", _check_estimator), ("env", check_env)):
        if not own_files.is_reference(parts[name]):
            check(parts[name])
    if settings_of is not None:
        check_settings_of(settings_of, parts["estimator"])
    parts = resolved(parts)
    estimator, env = settings_of or parts["estimator"], parts["env"]
    changes: dict[str, Any] = {}
    if _named(argv, "env"):
        changes["env"] = env
    if (_named(argv, "minibatch-size") or "none").lower() != "none":
        changes["num_minibatches"] = 1  # one of the two defines the minibatches
    return preset(estimator, **changes)


def _settings_of(argv: list[str], *, is_new: bool) -> str | None:
    """The name that --settings-of gives; None: none.

    Raises ValueError if there is one for a run that is not new, whose settings are stored.
    """
    name = _named(argv, "settings-of")
    if name is None or name.lower() == "none":
        return None
    if not is_new:
        raise ValueError("settings_of is for a new run, and this one has all its settings")
    return name


def check_settings_of(name: str, estimator: str) -> None:
    """Raises ValueError unless there is an estimator or variant of this name, and the estimator
    that is to have its settings is a custom one.
    """
    check_estimator("settings_of", name, variants=True)
    if not own_files.is_reference(estimator):
        raise ValueError(
            f"settings_of is for your own estimators: give one, as --estimator {own_files.FORM}, "
            f"or in a sweep as --over estimator={own_files.FORM}"
        )


def _estimator_of_over(argv: Sequence[str]) -> list[str]:
    """The first custom estimator that a sweep varies, as its flag, if it is to have the settings of
    another one and no estimator is given; else [].
    """
    words = list(argv)
    if _named(words, "settings-of") is None or _named(words, "estimator") is not None:
        return []
    for word in words_of(words, "over"):
        name, _, values = word.partition("=")
        own = list(filter(own_files.is_reference, values.split(",")))
        if name == "estimator" and own:
            return ["--estimator", own[0]]
    return []


def _check_estimator(name: str) -> None:
    """Raises ValueError, with the nearest valid names, unless there is such an estimator."""
    check_estimator("estimator", name, own_files.FORM, variants=True)


def _choose_devices_for_files(argv: Sequence[str]) -> None:
    """Chooses the devices before a user's file is executed: one that imports gymnax already
    computes with jax, after which they can no longer be chosen.
    """
    words = list(argv)
    number, shard = (_named(words, name) for name in ("cpu-devices", "shard"))

    def choose() -> None:
        with contextlib.suppress(ValueError):  # reported where the flags are read
            cpu_devices = int(number) if number else None
            machine = Machine(cpu_devices=cpu_devices, shard="envs" if shard == "envs" else "seeds")
            machine.choose_devices()

    own_files.before_executing(choose)


def _stored(run: Path, argv: list[str]) -> tuple[Config, Hyperparams]:
    """The settings of a run's folder, with the custom parts that are given again."""
    if _is_given(argv, "out"):
        raise ValueError("--out and --resume are mutually exclusive: a run goes on in its folder")
    given = {name: _named(argv, name) for name in PARTS}
    parts = {name: part for name, part in given.items() if own_files.is_reference(part)}
    return folders.read_setup(
        run,
        parts.pop("env", None),
        parts=parts,
        allow_changed_code=_is_given(argv, "allow-changed-code"),
    )


def naming_command(error: Exception, sentence: str) -> Exception:
    """The error; if an environment failed and the error does not name the command that continues or
    restarts the work, with the sentence that does.
    """
    if isinstance(error, HostError) and not error.names_command:
        return error.with_command(sentence)
    return error


def mistake(error: object) -> int:
    """Prints the error in one sentence. Returns the exit code: 2, or 1 if an environment failed.

    For an exception in custom code it prints the place, and with --traceback the calls too.
    """
    said = str(error)
    if isinstance(error, Exception):
        place = own_files.place_of(error, named=True)
        if place and place not in said:
            said = f"{said} ({place})"
        if _traceback.get():
            traceback.print_exception(error)
        elif place or (error.__cause__ and own_files.place_of(error.__cause__, named=True)):
            said = f"{said}; --traceback shows all calls"
    print(wrapped(f"error: {_with_flags(said)}", sys.stderr), file=sys.stderr)
    return FAULT if isinstance(error, HostError) else MISTAKE


def _with_flags(said: str) -> str:
    """A sentence with the flags that were typed instead of the names of their settings, where the
    two differ by more than the dashes in front: --settings-of, not settings_of.
    """
    for name in _typed.get():
        if "_" in name:
            flag = f"--{name.replace('_', '-')}"
            pattern = rf"(?<![\w.'\"/-]){re.escape(name)}(?![\w.'\"/=(-])"
            said = re.sub(pattern, flag.replace("\\", r"\\"), said)
    return said


_Main = Callable[..., int]


def command(main: _Main) -> _Main:
    """A decorator of a command's function: an exception in custom code is printed as one sentence,
    and code 2 returned; after a signal the code is that of `interrupted`.
    """

    @functools.wraps(main)
    def one(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        token = _traceback.set("--traceback" in words)
        typed = _typed.set(frozenset(name_of(word) for word in words if is_flag(word)))
        try:
            with clock.of_command(), interrupts.listening(announce):
                return main([word for word in words if word != "--traceback"], prog)
        except Exception as error:
            if not own_files.place_of(error, named=True):
                raise
            return mistake(_failure_of_own_code(error))
        except KeyboardInterrupt as error:
            print("interrupted")
            return interrupted(interrupts.signal_of(error))
        finally:
            _traceback.reset(token)
            _typed.reset(typed)

    return one


def _failure_of_own_code(error: Exception) -> Exception:
    """An exception of custom code as a ValueError of one sentence."""
    from pg.envs.failures import failed

    if isinstance(error, ValueError):
        return error
    said = ValueError(failed("own code", error))
    said.__cause__ = error
    return said


def fail(error: object) -> NoReturn:
    """Prints the error in one sentence, and exits with the code of `mistake`."""
    raise SystemExit(mistake(error))


def abandon(error: object) -> NoReturn:
    """Reports that the job has lost a process, and exits with code 75 at once, as the others would
    wait forever.
    """
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(AGAIN)


def unwritten(error: object) -> int:
    """Prints what cannot be written. Returns the exit code, 74."""
    print(f"error: {error}; earlier files are intact", file=sys.stderr)
    return CANNOT_WRITE


def fail_to_write(error: object) -> NoReturn:
    """Prints what cannot be written, and exits with code 74."""
    raise SystemExit(unwritten(error))


def interrupted(signum: int | None) -> int:
    """The exit code after a signal: 130 for Ctrl-C, 75 for the others, which are sent when a
    machine is reclaimed or a time limit is near.
    """
    return INTERRUPTED if signum in (None, signal.SIGINT) else AGAIN


def outcome(done: Any) -> int:
    """The exit code of an `execution.Run` whose results are written."""
    if done.signum:
        return interrupted(done.signum)
    from pg.runs import results

    return NOT_FINITE if results.failed_runs(done.metrics, done.on_nonfinite).any() else 0


def announce(work: str) -> None:
    """Prints, after a signal, the work that is finished first; `interrupts.listen` calls it."""
    start = "\n" if sys.stderr.isatty() else ""
    print(
        f"{start}stopping after {work}; another signal, such as Ctrl-C, quits at once",
        file=sys.stderr,
        flush=True,
    )


def say(text: str) -> None:
    """Prints one paragraph, in lines that fit the terminal."""
    print(wrapped(text), flush=True)


def describe(
    config: Config,
    hyperparams: Hyperparams,
    horizon: int,
    num_params: int,
    *,
    num_actions: int = 1,
    resets: str = "",
    verbose: bool = False,
) -> str:
    """The plan of a run, in words.

    Args:
        config: The static settings.
        hyperparams: The others.
        horizon: The environment's own time limit, in actions.
        num_params: The number of parameters of policy and critic.
        num_actions: The number of discrete actions; 1 for other action spaces.
        resets: The way in which windows reset their environments; "": not printed.
        verbose: Lists all settings, not only those that differ from the defaults of Config and
            Hyperparams.
    """
    episodes = config.collect == "episodes"
    longest = (config.horizon or horizon) if episodes else config.num_steps
    num_rollouts = config.num_envs
    facts = facts_of(config.estimator)
    extra_rollouts = facts.extra_rollout_kind
    if extra_rollouts == "greedy":
        num_rollouts += config.num_envs // config.group_size
    if extra_rollouts == "successors":
        num_rollouts *= 1 + config.num_branches
    if extra_rollouts == "lookahead":
        num_rollouts *= num_actions * config.num_branches
    num_resets = config.num_envs * facts.starts
    if config.optimizer in RESAMPLING:
        num_rollouts *= 2
        num_resets *= 2
    beside = ""
    if extra_rollouts == "branches":
        beside = ", plus those of the episodes from visited states"
    of_update = num_rollouts * longest * config.action_repeat + num_resets
    planned = config.num_updates * of_update
    batch = f"{config.num_envs} × {numerals.counted(config.num_steps, 'step')}"
    if episodes:
        batch = numerals.counted(config.num_envs, "complete episode")
    updates = numerals.counted(config.num_updates, "update")
    steps = numerals.counted(planned, "environment step")
    static = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "preset"
    }
    lines = [
        f"{config.title}: {updates} of {batch}, {numerals.counted(num_params, 'parameter')}",
        f"planned: {'at most ' if episodes else ''}{steps} per seed{beside}"
        + (f"; resets {resets}" if resets else ""),
    ]
    if verbose:
        named = static | {name: part_name(part) for name, part in own_parts(config).items()}
        lines += ["config: " + _listing(named), "hyperparams: " + _listing(hyperparams.scalars())]
    else:
        default = Config(env=config.env, estimator=config.estimator)
        usual = {field.name: getattr(default, field.name) for field in dataclasses.fields(Config)}
        usual |= default.hyperparams().scalars()
        changed = {
            name: Path(flags.as_word(value)).name if name in PARTS else value
            for name, value in {**static, **hyperparams.scalars()}.items()
            if name not in ("env", "estimator") and value != usual[name]
        }
        listed = "all have their defaults"
        if changed:
            listed = f"{_listing(changed)}; the others have their defaults"
        lines += [f"settings of training: {listed} (config.json has them, --verbose lists them)"]
    return "\n".join(wrapped(line, otherwise=WIDTH) for line in lines)


def _listing(values: Mapping[str, Any]) -> str:
    """The settings as NAME=VALUE, environment parameters by their own names."""
    texts = []
    for name, value in values.items():
        if name == "env_params" and value:
            texts += [f"{parameter}={number}" for parameter, number in dict(value).items()]
        else:
            texts.append(f"{name}={value}")
    return ", ".join(texts)


def cache_compilations() -> Path:
    """Keeps compiled programs on disk for the next run, in $JAX_COMPILATION_CACHE_DIR or
    ~/.cache/pg. Returns the folder.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pg" / "compilations"
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    return Path(folder)


def _is_given(argv: list[str], flag: str) -> bool:
    """True if a switch is on in argv, read before the parser runs."""
    return f"--{flag}" in [word.replace("_", "-") for word in argv]


def _with_value(argv: Sequence[str], flag: str, value: str) -> list[str]:
    """The command line with another value of --flag, before the parser runs."""
    line: list[str] = []
    is_former = False  # the next word is the former value
    for word in argv:
        name, equals, _ = word.partition("=")
        is_the_flag = name.replace("_", "-") == f"--{flag}"
        if not is_the_flag and not is_former:
            line.append(word)
        is_former = is_the_flag and not equals
    return [*line, f"--{flag}", value]


def _named(argv: list[str], flag: str) -> str | None:
    """The last value of --flag in argv, read before the parser runs."""
    value = None
    for i, word in enumerate(argv):
        name, equals, rest = word.partition("=")
        if name.replace("_", "-") == f"--{flag}":
            following = argv[i + 1] if i + 1 < len(argv) else None
            value = rest if equals else following
    return value
