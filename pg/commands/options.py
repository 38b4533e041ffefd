"""Options that several commands share: the length of training, own parts, checkpoints, the
machine.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pg.config import PARTS, Config, Hyperparams, Shard
from pg.fast import cores
from pg.inputs import check_name
from pg.runs import folders
from pg.settings import own_files
from pg.settings.choices import MatmulPrecision
from pg.trackers.base import TRACKERS

if TYPE_CHECKING:
    from pg.fast.devices import Layout

__all__ = [
    "BorrowedSettings",
    "Checkpointing",
    "Following",
    "Length",
    "Machine",
    "OwnParts",
    "OwnPolicy",
    "SettingsFile",
]


@dataclasses.dataclass
class Length:
    """The length of training, in steps instead of updates."""

    total_steps: int | None = None
    """Number of environment steps per seed, rounded up to whole updates; replaces num_updates, with
    windows.
    """


@dataclasses.dataclass
class SettingsFile:
    """The settings as a file, in and out."""

    config: Path | None = None
    """File of settings, TOML, JSON or YAML as --print-config writes it, or config.json of a run;
    flags override it.
    """
    print_config: bool = False
    """Print all settings as a file that --config reads, and exit."""


@dataclasses.dataclass
class BorrowedSettings:
    """The settings of a listed estimator for a custom one."""

    settings_of: str | None = None
    """Train your own --estimator FILE.py:NAME with the settings of this estimator or variant (ppo,
    trpo, ...) for the environment, in Python Config(preset=...); none: those given by its
    pg.with_facts.
    """


@dataclasses.dataclass(kw_only=True)
class OwnPolicy:
    """The custom policy of a run, given again because code in a run's folder is never executed."""

    policy: str | None = None
    """FILE.py:NAME of the run's policy, if it was your own."""
    allow_changed_code: bool = False
    """Continue even if your own file has changed since the run."""

    def setup(
        self, folder: Path, env: str | None = None, needed: Collection[str] = ("env", "policy")
    ) -> tuple[Config, Hyperparams]:
        """Config and Hyperparams of a run's folder, with the parts that are given again.

        Args:
            folder: of the run.
            env: its environment, of a file.
            needed: the parts that the command needs.

        Raises:
            ValueError: as `folders.read_setup` does.
        """
        given = {name: getattr(self, name, None) for name in PARTS if name != "env"}
        return folders.read_setup(
            folder, env, parts=given, needed=needed, allow_changed_code=self.allow_changed_code
        )


@dataclasses.dataclass(kw_only=True)
class OwnParts(OwnPolicy):
    """The custom parts of a run that is trained again."""

    env: str | None = None
    """FILE.py:CLASS of the run's environment, if it was your own."""
    estimator: str | None = None
    """FILE.py:NAME of its estimator."""
    critic: str | None = None
    """FILE.py:NAME of its critic."""
    optimizer: str | None = None
    """FILE.py:NAME of its optimizer."""


@dataclasses.dataclass
class Checkpointing:
    """Times at which states are saved, so that only the updates since are lost."""

    checkpoint_minutes: float = 1.0
    """Minutes between checkpoints; inf: only at the end, and when a run is interrupted."""
    checkpoint_updates: int | None = None
    """Number of updates after which a checkpoint is due even if checkpoint_minutes have not passed;
    none: only the time counts.
    """
    checkpoints_kept: int = 2
    """Number of checkpoints that are kept; older ones are removed."""

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        if not self.checkpoint_minutes >= 0:
            raise ValueError(
                f"checkpoint_minutes must be at least 0, got {self.checkpoint_minutes}"
            )
        for name in ("checkpoint_updates", "checkpoints_kept"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")

    def checkpoint_writer(
        self,
        folder: Path | None,
        metadata: Mapping[str, Any],
        columns: Mapping[str, Any],
        partial: Any,
        *,
        hold: bool = False,
    ) -> Any:
        """The writer of checkpoints; arguments as in `checkpoints.CheckpointWriter`."""
        from pg.runs.checkpoints import CheckpointWriter

        return CheckpointWriter(
            folder,
            metadata,
            columns,
            partial=partial,
            minutes=self.checkpoint_minutes,
            updates=self.checkpoint_updates,
            max_to_keep=self.checkpoints_kept,
            hold=hold,
        )


@dataclasses.dataclass
class Following:
    """The evaluations of a run during training, and their uses."""

    eval_every: int | None = None
    """Number of updates between evaluations during training, which have their own keys; the last
    update is evaluated too, and the parameters of the best evaluation are kept; none: no such
    evaluations.
    """
    eval_minutes: float | None = None
    """Minutes between evaluations during training, in addition to or instead of eval_every; they
    follow the clock, so another run is evaluated at other updates.
    """
    stop_at_return: float | None = None
    """Return at which training ends, once the mean of an evaluation reaches it for every seed."""
    film: bool = False
    """Draw an episode of the first seed at the end, as policy.gif, with the best parameters if
    there are evaluations during training.
    """
    log: tuple[str, ...] = ()
    """Experiment trackers to log to, separated by spaces: tensorboard, wandb, mlflow, aim; each is
    an optional extra of the same name.
    """

    def check_following(self) -> None:
        """Raises ValueError for a number out of range, or one that is missing."""
        self.log = tuple(self.log)  # a list, where it is read from a file
        for name in self.log:
            check_name("tracker", name, TRACKERS)
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(
                f"eval_every must be a whole number of at least 1, got {self.eval_every}"
            )
        if self.eval_minutes is not None and not 0 <= self.eval_minutes < math.inf:
            raise ValueError(f"eval_minutes must be at least 0, got {self.eval_minutes}")
        if self.stop_at_return is None:
            return
        if not math.isfinite(self.stop_at_return):
            raise ValueError(f"stop_at_return must be a number, got {self.stop_at_return}")
        if self.eval_every is None and self.eval_minutes is None:
            raise ValueError(
                "stop_at_return needs evaluations during training: give --eval-every K"
            )


@dataclasses.dataclass
class Machine:
    """Devices and processes that share the work."""

    shard: Shard = "seeds"
    """Axis that is sharded over devices: seeds (whole runs), or the environments of each run."""
    cpu_devices: int | None = None
    """Number of XLA devices that the CPU is split into; none: one per core for seeds, and for envs
    if that makes a run faster, else one.
    """
    distributed: bool = False
    """This process is one of several, started by SLURM, Open MPI, Kubernetes or a TPU pod."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where the launcher does not announce it."""
    num_processes: int | None = None
    """Number of processes; with coordinator."""
    process_id: int | None = None
    """Index of this process, from 0; with coordinator."""
    matmul_precision: MatmulPrecision | None = None
    """Lowest precision of float32 matrix products and convolutions on an accelerator, fastest
    first; a CPU always computes in float32; none: JAX's own setting, by default the fastest.
    """
    debug: bool = False
    """Stop at an operation that produces a NaN, at a key that is used twice, and at a leaked
    tracer; slow.
    """

    @classmethod
    def of_resumed(cls, asked: Mapping[str, Any]) -> "Machine":
        """The machine of a resumed run, unless flags say otherwise: environments are spread if they
        were, over as many devices (`layout`). asked: options of its folder.
        """
        return cls(
            shard=asked.get("shard", "seeds"), matmul_precision=asked.get("matmul_precision")
        )

    @classmethod
    def of_run(cls, asked: Mapping[str, Any]) -> "Machine":
        """The machine of a run that is evaluated or replayed. asked: options of its folder."""
        return dataclasses.replace(cls.of_resumed(asked), cpu_devices=asked.get("cpu_devices"))

    @property
    def several(self) -> bool:
        """True for one process of several."""
        return self.distributed or self.coordinator is not None

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range, or one that is missing."""
        if self.matmul_precision is not None:
            check_name("matmul_precision", self.matmul_precision, get_args(MatmulPrecision))
        if self.cpu_devices is not None and self.cpu_devices < 1:
            raise ValueError(
                f"cpu_devices must be a whole number of at least 1, got {self.cpu_devices}"
            )
        coordinator, number, process = self.coordinator, self.num_processes, self.process_id
        if coordinator is None and number is None and process is None:
            return
        in_range = number is not None and process is not None and 0 <= process < number
        if coordinator is None or not in_range:
            raise ValueError(
                "coordinator, num_processes and process_id belong together, 0 <= process_id < "
                f"num_processes; got {coordinator}, {number} and {process}"
            )

    def start(self) -> None:
        """Configures jax, before anything is computed; if something has been computed already, the
        devices stay as they are, and a note says so.

        Raises ValueError if no other process can be found, or if `cpu_devices` can no longer be
        set.
        """
        from pg.fast import devices

        if self.debug:
            devices.check_everything()
        if self.matmul_precision is not None:
            devices.use_matmul_precision(self.matmul_precision)
        if not self.choose_devices():
            self._stay()
        if self.several:
            devices.join(self.coordinator, self.num_processes, self.process_id)

    def choose_devices(self) -> bool:
        """Tells jax how many devices the CPU has. Returns False if something has been computed
        already, so that it is too late.
        """
        from pg.fast import devices

        return devices.use_cpu_cores(self._num_cpu_devices())

    def _num_cpu_devices(self) -> int | None:
        """The number of devices of the CPU; None: one for each core."""
        return self.cpu_devices or (1 if self.several else None)

    def layout(
        self, num_runs: int, num_envs: int, params: Any = None, before: int | None = None
    ) -> tuple["Layout", str]:
        """The devices of runs, and a sentence on them, "" if there is nothing to report.

        Environments are spread over the cores of a CPU where that pays, unless `cpu_devices` says
        otherwise: requested devices are all used, like an accelerator's.

        Args:
            num_runs: Runs at a time.
            num_envs: Environments of each that are stepped together.
            params: The parameters of a run, or their shapes; None: unknown, or different between
                runs.
            before: Devices of the environments so far, for a run that is resumed or repeated.
        """
        import jax

        from pg.fast import devices

        if self.shard == "seeds":
            return devices.layout("seeds", num_runs), ""
        there = jax.device_count()
        is_cpu = jax.default_backend() == "cpu" and jax.process_count() == 1
        if not is_cpu or there == 1 or (self.cpu_devices is None and before is not None):
            return devices.layout("envs", before if is_cpu else None), ""
        pays = params is not None and devices.spread_pays(params)
        entries = f"{devices.largest_kernel(params):,}"
        if self.cpu_devices is not None:
            sentence = (
                f"spread over {there} devices, as requested; --cpu-devices 1 is about as fast, as "
                f"matrix products with kernels of up to {entries} weights use all cores by "
                "themselves"
            )
            return devices.layout("envs"), "" if pays or params is None else sentence
        if params is None:
            return devices.layout("envs", 1), ""
        if num_envs % there:
            sentence = (
                f"on one device, as the number of environments at a time, {num_envs}, is not a "
                f"multiple of the {there} cores"
            )
            return devices.layout("envs", 1), sentence
        if pays:
            sentence = (
                f"environments are spread over the {there} cores as devices; --cpu-devices 1 takes "
                "one, with different bits"
            )
            return devices.layout("envs"), sentence
        sentence = (
            f"on one device, as products with kernels of up to {entries} weights use all cores by "
            f"themselves; --cpu-devices {there} spreads the environments"
        )
        return devices.layout("envs", 1), sentence

    def _stay(self) -> None:
        """Says how many devices there are, once their number cannot be changed."""
        import jax

        there = len(jax.local_devices())
        if (file := own_files.started_jax()) is not None:
            wanted = self._num_cpu_devices() or cores.num_cores()
            if len(jax.local_devices(backend="cpu")) == wanted:
                return  # they were chosen before the file was executed
            raise ValueError(
                f"{file} computes with jax while it is imported, before the devices are chosen: "
                "compute in a function, or with numpy"
            )
        if self.cpu_devices not in (None, there) and jax.default_backend() == "cpu":
            raise ValueError(
                f"cpu_devices must be {there}, as JAX is in use in this process with that many, or "
                f"be set before anything is computed; got {self.cpu_devices}"
            )
        kept = "one device stays" if there == 1 else f"{there} devices stay"
        print(f"JAX is in use in this process already: --cpu-devices cannot change now, and {kept}")
