"""A run's folder: its path, its lock, the settings of the run, and the writing of its files.

    OUT/ENV/ESTIMATOR/NAME/
        config.json      Config, Hyperparams, options   versions.json   software, device, git commit
        code/            texts of the user's parts
        init_from.safetensors, reference.safetensors    of the start (see `policy_files`)
        .lock            process and host that use it

Imports neither jax nor gymnax, so that a folder which cannot be used is refused at once.
"""

import contextlib
import datetime
import errno
import hashlib
import json
import math
import os
import platform
import re
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pg import __version__
from pg.config import (
    PARTS,
    Config,
    Hyperparams,
    Shard,
    check_interface,
    class_of,
    merge_env_params,
    name_of,
    part_name,
)
from pg.fast import cores
from pg.inputs import Optional, misfit, shown
from pg.runs import code, files, policy_files
from pg.runs.migrations import migrated
from pg.settings import own_files
from pg.settings.choices import MatmulPrecision

PACKAGES: tuple[str, ...] = ("pg", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")
# Settings of jax, without their "jax_", that numbers can depend on: random bits, precision and
# types, and the compiler.
SETTINGS_OF_JAX = (
    "default_prng_impl",
    "enable_custom_prng",
    "random_seed_offset",
    "high_dynamic_range_gumbel",
    "threefry_gpu_kernel_lowering",
    "legacy_prng_key",
    "default_matmul_precision",
    "allow_f16_reductions",
    "numpy_dtype_promotion",
    "explicit_x64_dtypes",
    "default_dtype_bits",
    "softmax_custom_jvp",
    "disable_most_optimizations",
    "optimization_level",
    "exec_time_optimization_effort",
    "disable_jit",
    "memory_fitting_effort",
    "memory_fitting_level",
    "compiler_enable_remat_pass",
    "enable_pgle",
    "use_shardy_partitioner",
    "use_direct_linearize",
    "use_magma",
    "cpu_collectives_implementation",
    "bcoo_cusparse_lowering",
    "ragged_dot_use_gpu_pallas_triton_lowering",
    "default_device",
)
# Environment variables that configure the libraries below jax.
VARIABLES = ("NVIDIA_TF32_OVERRIDE", "LIBTPU_INIT_ARGS")
LONGEST_NAME = 100  # characters; file systems allow 255 bytes
DEEPEST = 20  # nesting of lists and objects in a file that is read: settings have three
BEST = "best.safetensors"  # the parameters with the best evaluation during training
# A number as `jsonable` writes it, which may not be finite.
NUMBER: tuple[Any, ...] = (float, None, "inf", "-inf")
# The expected shapes of a run's files (see `inputs.misfit`).
SETTINGS: dict[str, Any] = {"config": dict, "hyperparams": dict}
VERSIONS: dict[str, Any] = {"resumed": Optional([{"changed": Optional([str])}])}
SETUP: dict[str, Any] = {
    **SETTINGS,
    "env_class": Optional((str, None)),
    "parts": Optional(code.PARTS_JSON),
    "options": Optional(
        {
            **{name: Optional(int) for name in ("seed", "seeds", "eval_episodes")},
            "command": Optional(str),
            "greedy": Optional(bool),
            "eval_every": Optional((int, None)),
            **{name: Optional((float, None)) for name in ("eval_minutes", "stop_at_return")},
            "film": Optional(bool),
            "settings_of": Optional((str, None)),
            "log": Optional([str]),
            "shard": Optional(get_args(Shard)),
            "cpu_devices": Optional((int, None)),
            "matmul_precision": Optional((*get_args(MatmulPrecision), None)),
        }
    ),
}


def create(out: Path, config: Config, seed: int) -> Path:
    """A new folder `out`/ENV/ESTIMATOR/DATE-seedN. Raises ValueError if it cannot be made."""
    return dated(parent(out, config), "the run", f"-seed{seed}")


def dated(above: Path, what: str, suffix: str = "") -> Path:
    """A new folder with the date in its name.

    Args:
        above: The folder in which it is made.
        what: Its purpose, for errors.
        suffix: The end of its name.

    Raises:
        ValueError: It cannot be made.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    failed = f"cannot make a folder for {what} in {above}"
    for attempt in range(100):
        folder = above / (f"{stamp}{suffix}" + (f"-{attempt}" if attempt else ""))
        try:
            files.make_folder(folder, new=True)
        except FileExistsError:
            if not above.is_dir():
                raise ValueError(f"{failed}: a file is in the way") from None
        except OSError as error:
            raise ValueError(f"{failed}: {error.strerror}") from None
        else:
            return folder
    raise ValueError(failed)


def named(out: Path, config: Config, name: str) -> Path:
    """The folder `out`/ENV/ESTIMATOR/NAME, made if it does not exist. Raises ValueError if it
    cannot be.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name) > LONGEST_NAME:
        allowed = (
            f"letters, digits, '_', '-' and '.', at most {LONGEST_NAME}, a letter, a digit or '_' "
            f"first"
        )
        raise ValueError(f"name must consist of {allowed}; got {name[:LONGEST_NAME]!r}")
    folder = parent(out, config) / name
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link to another folder: choose another name")
    try:
        files.make_folder(folder)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


@contextlib.contextmanager
def locked(folder: Path, *, of_run: bool = False) -> Iterator[None]:
    """Locks the folder for this process. Raises ValueError, with the other's number and host, if it
    is locked by another one.

    The operating system releases the lock when the process ends, in whatever way.

    Args:
        folder: An existing folder.
        of_run: It was made for a run, and is removed at the end if it is empty, as after a run that
            was refused.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    try:
        file = os.open(
            folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{folder / '.lock'} is a link: remove it") from None
        raise ValueError(f"cannot write to {folder / '.lock'}: {error.strerror}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:  # it is emptied below
            raise ValueError(f"{folder / '.lock'} is not a lock file of pg: remove it")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
            raise ValueError(
                f"{folder} is in use by {owner}: wait for it, or choose another folder"
            ) from None
        if not os.fstat(file).st_nlink:  # its owner has found nothing to keep in the folder
            raise ValueError(f"{folder} was removed in the meantime: start again")
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            if of_run:
                _remove_if_unused(folder)
    finally:
        os.close(file)


def _remove_if_unused(folder: Path) -> None:
    """Removes a folder that holds nothing but the lock and empty folders, and the folders
    ENV/ESTIMATOR above it if nothing else is in them.
    """
    if folder.is_symlink():
        return
    for path in list(folder.iterdir()):
        if path.is_dir():
            files.remove_if_empty(path)
    if [path.name for path in folder.iterdir()] == [".lock"]:
        (folder / ".lock").unlink()
        for path in (folder, *folder.parents[:2]):
            files.remove_if_empty(path)


def has_updates(folder: Path) -> bool:
    """True for the folder of a run with at least one saved update."""
    names = ("metrics.parquet", "params.safetensors", "summary.json")
    return any(os.path.lexists(folder / name) for name in names) or bool(
        files.named(folder / "checkpoints", r".*")
    )


def discard_setup(folder: Path) -> None:
    """Removes the files of `write_setup` of a run that has done no update."""
    files.remove(folder, r"(config|versions)\.json")
    files.remove(folder / "code", r".+-[0-9a-f]{12}\.py")
    policy_files.discard_copies(folder)


def parent(out: Path, config: Config) -> Path:
    """`out`/ENV/ESTIMATOR, absolute."""
    return place(out, name_of(config.env), part_name(config.estimator))


def place(out: Path, *names: str) -> Path:
    """The folder of these names below `out`, absolute."""
    return Path(out).expanduser().resolve().joinpath(*map(_allowed, names))


def _allowed(name: str) -> str:
    """The name as a folder name; one that is too long is cut, and ends with a digest of all of it,
    as others may begin alike.
    """
    allowed = re.sub(r"[^\w.-]", "-", name)  # "brax:ant" is not a valid folder name on every system
    if len(allowed) <= LONGEST_NAME:
        return allowed
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{allowed[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def write_setup(
    folder: Path,
    config: Config,
    hyperparams: Hyperparams,
    options: Mapping[str, Any],
    versions: Mapping[str, Any] | None = None,
) -> None:
    """Writes config.json and versions.json: everything needed to run it again. versions: default:
    `environment()`.
    """
    config, hyperparams = merge_env_params(config, hyperparams)
    setup: dict[str, Any] = {
        "config": config.to_json(),
        "hyperparams": hyperparams.scalars(),
        "options": dict(options),
    }
    if not isinstance(config.env, str):
        setup["env_class"] = class_of(config.env)
    if parts := code.record(config):
        setup["parts"] = parts
        code.write_texts(folder, config)
    policy_files.write_copies(folder, config)
    write_json(folder / "config.json", setup)
    write_json(folder / "versions.json", versions or environment())


def read_setup(
    folder: Path,
    env: Any = None,
    *,
    parts: Mapping[str, Any] | None = None,
    needed: Collection[str] = PARTS,
    allow_changed_code: bool = False,
) -> tuple[Config, Hyperparams]:
    """Config and Hyperparams of the run in a folder.

    Args:
        folder: of the run.
        env: the environment object of the run, which no file can hold, or `FILE.py:CLASS`; None:
            the run's environment has a name.
        parts: the other custom parts of the run, by field of Config (see `code.given_again`).
        needed: the fields that must be given if the run has custom parts.
        allow_changed_code: see `code.given_again`; always allowed for a run that has done no
            update.

    Raises:
        ChangedCodeError: a file of these parts has changed since the run.
        ValueError: there is no run, or it is corrupt, or has other parts than these.
    """
    path = folder / "config.json"
    try:
        data: Mapping[str, Any] = read_config(folder)
        given = dict(parts or {})
        if own_files.is_reference(env) or "env" in data.get("parts", {}):
            given["env"] = env
        may_differ = allow_changed_code or not has_updates(folder)
        own = code.given_again(folder, data, given, needed=needed, allow_changed_code=may_differ)
        data = _with_env(folder, data, own.pop("env", env))
        config, hyperparams = stored_settings({**data, "config": {**data["config"], **own}})
        return policy_files.attached(folder, config), hyperparams
    except code.ChangedCodeError:
        raise
    except ValueError as error:
        said = "" if str(folder) in str(error) else f"{path} does not hold the settings of a run: "
        raise ValueError(f"{said}{error}") from None


def _with_env(folder: Path, data: Mapping[str, Any], env: Any) -> Mapping[str, Any]:
    """The content of config.json, with the environment object instead of its name."""
    stored, name = data.get("env_class"), data["config"].get("env")
    if stored is None and (env is None or env == name):
        return data
    if env is None or isinstance(env, str):
        if stored is None:
            raise ValueError(f"{folder} holds a run of {name!r}: got {env!r}")
        raise ValueError(
            f"{folder} holds a run of an environment object, of the class {stored}: give it in "
            f"Python, as in pg.commands.job.resume({str(folder)!r}, "
            f"env={str(stored).rpartition('.')[2]}())"
        )
    check_interface(env)
    # The module may be another one: that of a notebook or a script is __main__.
    same = stored is None or str(stored).rpartition(".")[2] == type(env).__name__
    if not same or name != name_of(env):
        raise ValueError(
            f"{folder} holds a run of another environment, {name!r} of the class "
            f"{stored or 'of that name'}: got {name_of(env)!r} of the class {class_of(env)}"
        )
    return {**data, "config": {**data["config"], "env": env}}


def run_folder(folder: Path) -> Path:
    """The folder itself, or that of a sweep's best configuration.

    Raises ValueError if neither holds a run.
    """
    if os.path.lexists(folder / "config.json"):
        return folder
    if os.path.lexists(folder / "best" / "config.json"):
        return folder / "best"
    if any(os.path.lexists(folder / name) for name in ("sweep.json", "search.json")):
        raise ValueError(
            f"{folder} is a sweep that has not trained its best configuration again: finish it, "
            f"with fresh seeds"
        )
    if any(folder.glob("seeds-*.json")) or any(folder.glob("*/seeds-*.json")):
        raise ValueError(
            f"{folder} holds scores of an old benchmark, without metrics and "
            f"parameters: run it again in another folder"
        )
    raise ValueError(
        f"{folder} is not a folder of a run: give the one that pg train or pg sweep printed last"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, as it was written.

    Raises ValueError if the folder holds no run, or the file is corrupt.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise ValueError(_no_run(folder))
    return dict(read_json(path, SETUP))


def _no_run(folder: Path) -> str:
    """The error for a folder without config.json."""
    for file, kind in {"sweep.json": "a sweep", "search.json": "a search"}.items():
        if os.path.lexists(folder / file):
            command = _command_of_sweep(folder / file)
            named = f", {command}" if command else ""
            return f"{folder} is {kind}, not a run: the command that started it resumes it{named}"
    missing = "" if folder.is_dir() else ", which does not exist,"
    return f"{folder}{missing} is not a folder of a run: give one that pg train has printed"


def _command_of_sweep(path: Path) -> str:
    """The command that started the sweep or the search of a sweep.json or search.json, as a user
    types it; "" if it was started in Python.
    """
    stored = read_json(path, {"versions": Optional({"command": Optional([str])})})
    program, *words = stored.get("versions", {}).get("command") or [""]
    if Path(program).name == "sweep.py":  # in experiments/
        words.insert(0, "sweep")
    elif Path(program).name not in ("pg", "__main__.py"):
        return ""
    return shlex.join(["pg", *words])


def check_best(folder: Path) -> None:
    """Raises ValueError for the folder of a run without best parameters."""
    if not os.path.lexists(folder / BEST):
        raise ValueError(
            f"{folder} has no best parameters, as it was not evaluated during training: train "
            f"with --eval-every K"
        )


def check_command(folder: Path, command: str) -> None:
    """Raises ValueError if the run in a folder was made by another command than `command`, which
    would continue or repeat it differently. Commands have the names of scripts here, as in the
    folders.
    """
    maker = read_options(folder).get("command", "train.py")  # older folders do not record it
    if maker != command:
        raise ValueError(
            f"{folder} is of pg {maker.removesuffix('.py')}, and pg {command.removesuffix('.py')} "
            "would run it differently: give the folder of a run of pg train, or repeat the command "
            "that made this one"
        )


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the command in the run of a folder.

    Raises ValueError if the folder holds no run, or its seeds are invalid.
    """
    path = folder / "config.json"
    options = dict(read_config(folder).get("options", {}))
    first, number = options.get("seed", 0), options.get("seeds", 1)
    if number < 1 or not 0 <= first <= 2**32 - number:
        raise ValueError(f"{path} is corrupt: its seeds are {number} from {first} on")
    return options


def read_stored(folder: Path) -> dict[str, Any]:
    """The content of config.json, under current names: config, hyperparams and options.

    Raises ValueError if the folder holds no run. The environment need not be known.
    """
    return migrated(read_config(folder))


def default_settings() -> dict[str, dict[str, Any]]:
    """The entries `config` and `hyperparams` of the defaults without a preset: the values of
    newer fields, which stored settings lack.
    """
    return {"config": Config(preset=None).to_json(), "hyperparams": Hyperparams().scalars()}


def stored_settings(data: Mapping[str, Any]) -> tuple[Config, Hyperparams]:
    """Config and Hyperparams from the entries `config` and `hyperparams` of a file of `write_json`.

    Raises ValueError for invalid settings.
    """
    data = migrated(data)
    try:
        return Config.from_json(data["config"]), Hyperparams.from_json(data["hyperparams"])
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"a value is of the wrong type: {error}") from None


def environment(layout: Any = None) -> dict[str, Any]:
    """Everything that numbers can depend on besides settings, and their origin: versions, devices,
    flags, commit.

    layout: of the work over devices; None: all devices, without a layout.
    """
    import jax

    return {
        "python": platform.python_version(),
        **_versions(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "platform_version": jax.devices()[0].client.platform_version,
        "num_devices": layout.mesh.size if layout else jax.device_count(),
        "num_processes": jax.process_count(),
        "shard": layout.shard if layout else None,
        "num_cores": cores.num_cores(),
        "platform": platform.platform(),
        "instructions": _instructions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "variables": {name: os.environ.get(name, "") for name in VARIABLES},
        "jax_settings": settings_of_jax(),
        "threefry_partitionable": jax.config.values["jax_threefry_partitionable"],
        "enable_x64": jax.config.values["jax_enable_x64"],
        **_checkout(Path(__file__)),
        "command": sys.argv,
    }


def num_devices(folder: Path) -> int | None:
    """The number of devices that the environments of the run in a folder were spread over; None:
    not recorded, or the seeds were spread, so that it need not divide the number of environments.
    """
    path = folder / "versions.json"
    if not os.path.lexists(path):
        return None
    versions = read_json(path, VERSIONS)
    found = versions.get("num_devices") if versions.get("shard") == "envs" else None
    return found if isinstance(found, int) and found >= 1 else None


def settings_of_jax() -> dict[str, Any]:
    """The settings of jax that numbers can depend on, as JSON has them; None for a name that
    this release lacks.
    """
    import jax

    values = {name: jax.config.values.get(f"jax_{name}") for name in SETTINGS_OF_JAX}
    plain = (bool, int, float, type(None))
    return {
        name: value if isinstance(value, plain) else str(value) for name, value in values.items()
    }


def differing(stored: Any, current: Any, name: str = "") -> list[str]:
    """Sentences on the entries in which two settings, as JSON, differ."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        return [
            text
            for key in sorted({*stored, *current}, key=str)
            for text in differing(
                stored.get(key), current.get(key), f"{name}.{key}".removeprefix(".")
            )
        ]
    return (
        []
        if stored == current
        else [f"{name} is {shown(stored)} in the stored run and {shown(current)} in this one"]
    )


def write_json(path: Path, data: Any, *, sync: bool = True) -> None:
    """Writes strict JSON: a number that is not finite is a string ("inf") or, if it stands for
    "none", null. sync: see `files.replace`.
    """
    text = json.dumps(jsonable(data), indent=2, allow_nan=False) + "\n"
    files.replace(path, lambda file: file.write(text.encode()), sync=sync)


def read_json(path: Path, shape: Any = dict) -> Any:
    """Reads a file of `write_json`, of a given shape (see `inputs.misfit`).

    Raises ValueError if the file does not exist, is not a plain file, is corrupt, or holds
    something else.
    """
    return parse_json(files.read_bytes(path), path, shape)


def parse_json(text: bytes | str, path: Path, shape: Any = dict) -> Any:
    """Strict JSON of a shape (see `inputs.misfit`). path: its file, for errors.

    Raises ValueError for a number that is not finite or does not fit into 64 bits, a name that
    occurs twice, nesting deeper than `DEEPEST`, bytes that are not UTF-8, and another shape.
    """
    try:
        data = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_once,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_countable,
        )
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is corrupt: it holds no strict JSON") from None
    if _depth(data) > DEEPEST:
        raise ValueError(f"{path} is corrupt: it is nested more than {DEEPEST} times")
    if found := misfit(data, shape):
        raise ValueError(f"{path} does not hold what was expected: {found}")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _countable(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError(text)
    return value


def _depth(data: Any) -> int:
    """The depth of nested lists and objects."""
    level, depth = [data], 0
    while level := [x for x in level if isinstance(x, dict | list)]:
        depth += 1
        level = [y for x in level for y in (x.values() if isinstance(x, dict) else x)]
    return depth


def jsonable(data: Any) -> Any:
    """The data as strict JSON can represent it."""
    if isinstance(data, Mapping):
        return {str(name): jsonable(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [jsonable(value) for value in data]
    if hasattr(data, "tolist"):  # numpy's, or jax's
        return jsonable(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None if math.isnan(data) else str(data)
    return str(data) if isinstance(data, Path) else data


def _versions() -> dict[str, str]:
    """The versions of the installed packages; the distribution of this one is named differently
    from the package.
    """
    versions = {"pg": __version__}
    for name in PACKAGES:
        with contextlib.suppress(ModuleNotFoundError):
            versions.setdefault(name, version(name))
    return versions


def _checkout(file: Path) -> dict[str, Any]:
    """The commit of the checkout that a file is tracked in, and whether that has changes.

    None and False for a file of an installed package, whose environment may be inside the checkout
    of another project.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return {"git_commit": None, "git_dirty": False}
    return {
        "git_commit": _git(file.parent, "rev-parse", "HEAD"),
        "git_dirty": bool(_git(file.parent, "status", "--porcelain")),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """The answer of git in a folder; None outside of a checkout, and if git refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _instructions() -> str:
    """The widest vector instructions of the processor, which determine the order of sums; "" if
    unknown.
    """
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        return next(
            (name for name in ("avx512f", "avx2", "avx", "sse4_2", "asimd") if name in flags), ""
        )
    return ""
