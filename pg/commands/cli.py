"""Command lines: every field of Config and Hyperparams as a flag, its docstring as the help text.

Imports neither jax nor gymnax, so that `--help` and a mistake answer at once.
"""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import math
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import tyro

from pg import __version__
from pg.commands.terminal import WIDTH, outlive_readers, wrapped
from pg.commands.terminal import Progress as Progress
from pg.commands.terminal import waiting as waiting
from pg.config import (
    ENVIRONMENTS,
    LIBRARIES,
    UNSUPPORTED,
    Config,
    Hyperparams,
    Shard,
    check_env,
    check_hyperparams,
    check_together,
)
from pg.estimators.facts import FACTS
from pg.inputs import check_name, nearest
from pg.presets import preset
from pg.runs import encoding, folders

# Exit codes; 74 and 75 are sysexits' EX_IOERR and EX_TEMPFAIL.
MISTAKE = 2  # in the arguments, or a folder that cannot be used
NOT_FINITE = 3  # a run stopped at a number that was not finite
CANNOT_WRITE = 74  # the disk is full, or not to be written to
AGAIN = 75  # taken away by SIGTERM or SIGUSR1, or a job lost a process: the same again goes on
INTERRUPTED = 130  # Ctrl-C, as shells have it


RESUMED = ("seed", "seeds", "eval_episodes", "greedy")  # options that a run goes on with


def _whole(text: str) -> int:
    value = float(text)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{text} is not a whole number")
    return int(value)


def _assignment(text: str) -> tuple[str, bool | float]:
    name, value = _divided(text)
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    number = float(value)
    return name, int(number) if number.is_integer() and "." not in value else number


def _divided(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text} is not NAME=VALUE")
    return name, value


def _primitive(convert: Callable[[str], Any], metavar: str, nargs: Any = 1) -> Any:
    many = nargs == "*"
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=metavar,
        instance_from_str=lambda texts: tuple(map(convert, texts)) if many else convert(texts[0]),
        is_instance=lambda value: isinstance(value, tuple) if many else isinstance(value, int),
        str_from_instance=lambda value: [f"{k}={v}" for k, v in value] if many else [str(value)],
    )


_INTEGER = Annotated[int, _primitive(_whole, "INT")]  # accepts 1e6
_TYPES: dict[str, Any] = {
    "env": str,
    "env_params": Annotated[tuple, _primitive(_assignment, "NAME=VALUE", "*")],
    "horizon": _INTEGER | None,
    "minibatch_size": _INTEGER | None,
    "hidden_sizes": tuple[int, ...],
    "n_step": _INTEGER,
    "total_steps": _INTEGER | None,
    "snapshot_period": _INTEGER,
}
# Traced: for sweeps in Python; and a label whose values are the flags' defaults.
_HIDDEN = {("Hyperparams", "env_params"), ("Config", "preset")}
# The experiment itself, which the help shows first, in this order.
_FIRST = (
    *("env", "env_params", "estimator", "over", "method", "points", "draw", "seeds", "seed"),
    *("num_updates", "total_steps", "num_envs", "num_steps", "name", "out", "resume"),
)
_NAMES = {
    "env": ", ".join(name for name in ENVIRONMENTS if name not in UNSUPPORTED)
    + f"; or library:name, of {', '.join(LIBRARIES)}",
    "estimator": ", ".join(FACTS),
}
# Flags of other command lines that this one has in another form.
_INSTEAD = {
    "config": "each setting is a flag of its own, and --resume RUN goes on with the settings of a "
    "run's config.json",
    **dict.fromkeys(
        ("device", "gpu", "cuda", "platform"),
        "JAX_PLATFORMS=cpu or cuda in front of the command chooses",
    ),
    **dict.fromkeys(
        ("track", "wandb", "tensorboard"), "a run's metrics are metrics.parquet in its folder"
    ),
}


@dataclasses.dataclass
class Length:
    """The length of training, in steps instead of updates."""

    total_steps: int | None = None
    """Environment steps per seed, at least, in place of num_updates, which they are rounded up to;
    for windows.
    """


@dataclasses.dataclass
class Checkpointing:
    """When states are kept, so that nothing is lost but the updates since."""

    checkpoint_minutes: float = 1.0
    """Minutes from one checkpoint to the next; inf: only at the end, and where a run is
    interrupted.
    """
    checkpoint_updates: int | None = None
    """Updates from one checkpoint to the next; none: only the time counts."""
    checkpoints_kept: int = 2
    """Checkpoints that are kept, the last ones."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        if not self.checkpoint_minutes >= 0:
            raise ValueError(
                f"checkpoint_minutes must be at least 0, got {self.checkpoint_minutes}"
            )
        for name in ("checkpoint_updates", "checkpoints_kept"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")

    def keeper(
        self, folder: Path | None, about: Mapping[str, Any], columns: Mapping[str, Any], begun: Any
    ) -> Any:
        """What keeps the states of runs; arguments as of `checkpoints.Keeper`."""
        from pg.runs.checkpoints import Keeper

        return Keeper(
            folder,
            about,
            columns,
            begun=begun,
            minutes=self.checkpoint_minutes,
            updates=self.checkpoint_updates,
            most=self.checkpoints_kept,
        )


@dataclasses.dataclass
class Machine:
    """What the work is spread over."""

    shard: Shard = "seeds"
    """What devices share out: runs, or the environments of each run."""
    cpu_devices: int | None = None
    """Devices that the CPU counts as; none: for seeds one per core, for envs one."""
    distributed: bool = False
    """This is one process of several, which SLURM, Open MPI, Kubernetes or a TPU pod has
    started.
    """
    coordinator: str | None = None
    """HOST:PORT of process 0, where nothing else tells the processes of each other."""
    num_processes: int | None = None
    """How many processes there are; with coordinator."""
    process_id: int | None = None
    """Which of them this is, from 0; with coordinator."""
    debug: bool = False
    """Stops at the very operation that gives a NaN, at a key that is used twice, and at a leaked
    tracer; slow.
    """

    @property
    def several(self) -> bool:
        """Whether this is one process of several."""
        return self.distributed or self.coordinator is not None

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range, or one that is missing."""
        if self.cpu_devices is not None and self.cpu_devices < 1:
            raise ValueError(
                f"cpu_devices must be a whole number of at least 1, got {self.cpu_devices}"
            )
        found = (self.coordinator, self.num_processes, self.process_id)
        if any(x is not None for x in found) and (None in found or not 0 <= found[2] < found[1]):  # type: ignore
            raise ValueError(
                "coordinator, num_processes and process_id belong together, 0 <= process_id < "
                f"num_processes; got {found[0]}, {found[1]} and {found[2]}"
            )

    def start(self) -> None:
        """Tells jax, before anything is computed; where something has been already, its devices
        stay, and it says so.

        Raises ValueError where no other process can be found, and where `cpu_devices` cannot be
        what it was set to.
        """
        from pg.fast import devices

        if self.debug:
            devices.check_everything()
        changed = devices.use_cpu_cores(
            self.cpu_devices or (1 if self.several or self.shard == "envs" else None)
        )
        if not changed:
            self._stay()
        if self.several:
            devices.join(self.coordinator, self.num_processes, self.process_id)

    def _stay(self) -> None:
        """Says how many devices there are, once their number cannot be changed."""
        import jax

        there = len(jax.local_devices())
        if self.cpu_devices not in (None, there) and jax.default_backend() == "cpu":
            raise ValueError(
                f"cpu_devices must be {there}, as JAX is in use in this process with so many, or "
                f"be set before anything is computed; got {self.cpu_devices}"
            )
        print(
            f"JAX is in use in this process already: --cpu-devices cannot change now, and its "
            f"{there} device(s) stay"
        )


def parse(
    prog: str, description: str, options: type, argv: Sequence[str] | None = None
) -> tuple[Config, Hyperparams, Any, Machine]:
    """Config, Hyperparams, `options` (a dataclass of the script's own flags) and Machine from the
    command line.

    Defaults are the preset of the estimator and the environment that are named, or, with --resume
    RUN, the settings of that run. Exits with code 2 and one sentence on a mistake.
    """
    _prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    # a script's flag goes before a setting of its name
    own = {field.name for field in dataclasses.fields(options)}
    defaults = options()
    try:
        if "resume" in own and (run := _named(argv, "resume")):
            config, hyperparams = folders.read_setup(Path(run))
            stored = folders.read_options(Path(run))
            defaults = options(**{name: stored[name] for name in RESUMED if name in stored})
        else:
            config, hyperparams = _preset(argv)
    except ValueError as error:
        fail(error)
    sources = {
        **_flags(Config, config, own),
        **_flags(Hyperparams, hyperparams, own),
        **_flags(options, defaults),
        **_flags(Machine, Machine()),
    }
    values = _read(_grouped(sources, options), sources, prog, description, argv)
    try:
        config = dataclasses.replace(config, **_of(Config, values, own), preset=None)
        if (total_steps := values.get("total_steps")) is not None:
            if _named(argv, "num-updates"):
                raise ValueError("total_steps and num_updates exclude each other: give one of them")
            config = config.lasting(total_steps)
        hyperparams = check_hyperparams(hyperparams._replace(**_of(Hyperparams, values, own)))
        check_together(config, hyperparams)
        return (
            config,
            hyperparams,
            options(**_of(options, values)),
            Machine(**_of(Machine, values)),
        )
    except ValueError as error:
        fail(error)


_Options = TypeVar("_Options")


def options(kind: type[_Options], description: str, argv: Sequence[str] | None = None) -> _Options:
    """A dataclass of flags from the command line, for scripts without settings; exits as `parse`
    does.
    """
    _prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    _check_flags(argv, [field.name for field in dataclasses.fields(kind)])  # type: ignore[arg-type]
    with _colours():
        return tyro.cli(kind, description=_paragraphs(description), args=argv)


def docstring_of(script: str) -> str:
    """Returns the docstring of a file, which `python -OO` leaves out of the program that runs."""
    return ast.get_docstring(ast.parse(Path(script).read_text(encoding="utf-8"))) or ""


def _prepare_streams() -> None:
    """Has a script write to any console, and go on without one."""
    encoding.make_streams_readable()
    outlive_readers()


def _read(
    flags: type, names: Collection[str], prog: str, description: str, argv: list[str]
) -> dict[str, Any]:
    """The values of all flags by name."""
    _check_flags(argv, names)
    with _colours():
        parsed: Any = tyro.cli(flags, prog=prog, description=_paragraphs(description), args=argv)
    return {name: value for group in vars(parsed).values() for name, value in vars(group).items()}


def _check_flags(argv: list[str], names: Collection[str]) -> None:
    """Prints the version where it is asked for; exits with one sentence at a flag that there is
    not.
    """
    if "--version" in argv:
        print(f"pg {__version__}")
        raise SystemExit(0)
    if {"-h", "--help"} & set(argv):
        return
    known = [name.strip("_").replace("_", "-") for name in names]
    for word in argv:
        flag = word.partition("=")[0]
        name = flag.strip("-").replace("_", "-")
        if not _is_flag(flag) or name.removeprefix("no-") in known or name.startswith("tyro-"):
            continue
        near = [f"--{other}" for other in nearest(name, [*known, "help", "version"])]
        hint = _INSTEAD.get(name) or (
            f"did you mean {' or '.join(near)}?" if near else "--help lists all"
        )
        fail(f"there is no flag {flag}: {hint}")


def _is_flag(word: str) -> bool:
    """True for a flag, and False for a value: a number may be negative."""
    if not word.startswith("-") or not word.strip("-"):
        return False
    with contextlib.suppress(ValueError):
        float(word)
        return False
    return True


@contextlib.contextmanager
def _colours() -> Iterator[None]:
    """Has the parser write without colours where NO_COLOR asks for it; it knows such terminals, and
    not the word.
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
    """A docstring whose paragraphs fit the terminal; indented lines are those that the parser does
    not join.
    """
    return "\n\n".join(
        wrapped(" ".join(part.split()), otherwise=80) for part in text.strip().split("\n\n")
    )


def _preset(argv: list[str]) -> tuple[Config, Hyperparams]:
    """The preset of the estimator and the environment that are named."""
    estimator, env = (_named(argv, name) or getattr(Config, name) for name in ("estimator", "env"))
    check_name("estimator", estimator, FACTS)
    check_env(env)
    changes: dict[str, Any] = {}
    if _named(argv, "env"):
        changes["env"] = env
    if _named(argv, "minibatch-size") or _named(argv, "minibatch_size"):
        changes["num_minibatches"] = 1  # one of the two says how a batch is cut
    return preset(estimator, **changes)


def mistake(error: object) -> int:
    """Says what is wrong, in one sentence. The exit code, 2."""
    print(wrapped(f"error: {error}", sys.stderr), file=sys.stderr)
    return MISTAKE


def fail(error: object) -> NoReturn:
    """Says what is wrong, in one sentence, and exits with code 2."""
    raise SystemExit(mistake(error))


def abandon(error: object) -> NoReturn:
    """Says that the job has lost a process, and exits with code 75 at once: the others cannot be
    waited for.
    """
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(AGAIN)


def unwritten(error: object) -> int:
    """Says what cannot be written. The exit code, 74."""
    print(f"error: {error}; what was written before is there still", file=sys.stderr)
    return CANNOT_WRITE


def fail_to_write(error: object) -> NoReturn:
    """Says what cannot be written, and exits with code 74."""
    raise SystemExit(unwritten(error))


def interrupted(signum: int | None) -> int:
    """The exit code after a signal: 130 for Ctrl-C, 75 for the others, which say that the machine
    is taken away.
    """
    return INTERRUPTED if signum in (None, signal.SIGINT) else AGAIN


def outcome(done: Any) -> int:
    """The exit code of an `execution.Run` whose results are written."""
    if done.signum:
        return interrupted(done.signum)
    return NOT_FINITE if done.metrics["skipped"][:, -1].any() else 0


def announce(work: str) -> None:
    """Says, once a signal came, what is still waited for; `interrupts.listen` calls it."""
    start = "\n" if sys.stderr.isatty() else ""
    print(
        f"{start}stopping after {work}; again (Ctrl-C or another signal) to quit at once",
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
    verbose: bool = False,
) -> str:
    """The plan of a run, for people.

    Args:
        config: The static settings.
        hyperparams: The others.
        horizon: The environment's own time limit, in actions.
        num_params: Parameters of policy and critic.
        verbose: Lists all settings, and not only those that are not what Config and Hyperparams
            have by themselves.
    """
    episodes = config.collect == "episodes"
    longest = (config.horizon or horizon) if episodes else config.num_steps
    planned = config.num_updates * config.num_envs * longest * config.action_repeat
    batch = (
        f"{config.num_envs} {'complete episodes' if episodes else f'× {config.num_steps} steps'}"
    )
    static = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "preset"
    }
    lines = [
        f"{config.estimator} on {config.env}: {config.num_updates} updates of {batch}, "
        f"{num_params:,} parameters",
        f"planned: {'at most ' if episodes else ''}{planned:,} environment steps per seed",
    ]
    if verbose:
        lines += ["config: " + _listing(static), "hyperparams: " + _listing(hyperparams.scalars())]
    else:
        usual = {
            field.name: field.default for field in dataclasses.fields(Config)
        } | Hyperparams().scalars()
        said = ("env", "estimator", "num_updates", "num_envs", "num_steps")
        changed = {
            name: value
            for name, value in {**static, **hyperparams.scalars()}.items()
            if name not in said and value != usual[name]
        }
        listed = f"{_listing(changed)}; all others are defaults" if changed else "all are defaults"
        lines += [f"settings: {listed} (config.json has them, --verbose lists them)"]
    return "\n".join(wrapped(line, otherwise=WIDTH) for line in lines)


def _listing(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a number or a tuple where the value is one, else a text. Raises
    ValueError.
    """
    name, value = _divided(text)
    with contextlib.suppress(ValueError, SyntaxError):
        return name, ast.literal_eval(value)
    return name, value


def cache_compilations() -> Path:
    """Keeps compiled programs on disk for the next run: in $JAX_COMPILATION_CACHE_DIR or
    ~/.cache/pg. The folder.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pg" / "compilations"
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    return Path(folder)


def _named(argv: list[str], flag: str) -> str | None:
    """The value of --flag in argv, read ahead of the parser."""
    for i, word in enumerate(argv):
        name, equals, value = word.replace("_", "-", word.partition("=")[0].count("_")).partition(
            "="
        )
        if name == f"--{flag}":
            return value if equals else next(iter(argv[i + 1 : i + 2]), None)
    return None


def _flags(
    source: type, defaults: Any, taken: Collection[str] = ()
) -> dict[str, tuple[str, Any, Any]]:
    """The flags of the fields of `source` but those `taken`, by name: its class, annotation and
    default.
    """
    hints, helps = get_type_hints(source), _field_docstrings(source)
    flags = {}
    for name, hint in hints.items():
        if (source.__name__, name) in _HIDDEN or name in taken:
            continue
        default = getattr(defaults, name)
        if hint is Any:
            hint = _INTEGER if isinstance(default, int) else float
        kind = _TYPES.get(name, _INTEGER if hint is int else hint)
        text = helps.get(name)
        if text and name in _NAMES:
            text = f"{text} One of {_NAMES[name]}."
        flag = tyro.conf.arg(name=name.strip("_").replace("_", "-"), help=text)
        flags[name] = (source.__name__, Annotated[kind, flag], default)
    return flags


def _grouped(sources: Mapping[str, tuple[str, Any, Any]], options: type) -> type:
    """A dataclass of dataclasses, one for each group of flags as the help shows them."""
    titles = {
        "Config": "settings",
        "Hyperparams": "hyperparameters",
        options.__name__: "run",
        "Machine": "machine",
    }
    groups: dict[str, list[str]] = {"experiment": [name for name in _FIRST if name in sources]}
    for name, (source, _, _) in sources.items():
        if name not in _FIRST:
            groups.setdefault(titles[source], []).append(name)
    fields = []
    for title, names in groups.items():
        members = [
            (name, sources[name][1], dataclasses.field(default=sources[name][2])) for name in names
        ]
        group: Any = dataclasses.make_dataclass(title, members)
        fields.append((title, tyro.conf.OmitArgPrefixes[group]))  # type: ignore[misc]
    flags = dataclasses.make_dataclass("Flags", fields)
    flags.__doc__ = ""
    return flags


def _of(source: type, values: Mapping[str, Any], taken: Collection[str] = ()) -> dict[str, Any]:
    """Those of the values that are fields of `source`, and not `taken`."""
    hidden = {name for kind, name in _HIDDEN if kind == source.__name__}
    names = set(inspect.signature(source).parameters) - hidden - set(taken)
    return {name: value for name, value in values.items() if name in names}


def _field_docstrings(source: type) -> dict[str, str]:
    """The string below each annotated field of a class."""
    classes = [kind for kind in reversed(source.__mro__) if "__annotations__" in vars(kind)]
    bodies = [ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body for kind in classes]  # type: ignore
    return {
        field.target.id: str(doc.value.value)
        for body in bodies
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
    }
