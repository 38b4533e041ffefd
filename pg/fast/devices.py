"""Devices and hosts: the axis along which a program is spread over them.

    runs   every device trains its own runs, in loops of its own length; none waits for another
    envs   all devices train each run together, each with some environments; XLA adds up the results

One process per host or, on one, per slice of it: the processes run the same program, each on its
own devices.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pg.config import Config, Shard
from pg.fast import cores
from pg.settings.choices import MatmulPrecision

ENVS = "envs"
# XLA splits large products over the cores of a CPU, so that one device keeps them busy: with a
# kernel larger than this, spreading gains nothing (experiments/speed/spread.py).
SPREAD_KERNEL = 256 * 256
HEARTBEAT = 10  # seconds without a sign of life after which a process counts as dead

_mapped = contextvars.ContextVar("mapped", default=1)


class Layout(NamedTuple):
    """The devices in use, and how n runs, leaves [n, ...], are divided among them."""

    mesh: Mesh
    shard: Shard

    @property
    def sharding(self) -> NamedSharding:
        """The sharding of the arguments of a program, leaves [n, ...]."""
        return NamedSharding(self.mesh, PartitionSpec("runs" if self.shard == "seeds" else None))

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding of arrays that every device has in full."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def num_local(self) -> int:
        """The number of these devices that this process has."""
        return len(self.mesh.local_devices)

    def round_up(self, num_runs: int) -> int:
        """The smallest number of runs, at least `num_runs`, that divides evenly over the
        devices.
        """
        parts = self.mesh.size if self.shard == "seeds" else 1
        return -(-num_runs // parts) * parts

    def check(self, config: Config) -> None:
        """Raises ValueError if the environments of a run cannot be divided evenly."""
        if self.shard == "envs" and config.num_envs % self.mesh.size:
            raise ValueError(
                f"num_envs must be a multiple of the {self.mesh.size} devices, got "
                f"{config.num_envs}"
            )
        number = config.micro_batches
        if self.shard == "envs" and number != "auto" and config.num_envs // number % self.mesh.size:
            raise ValueError(
                f"num_envs / micro_batches must be a multiple of the {self.mesh.size} devices, got "
                f"{config.num_envs} / {number}"
            )


def layout(shard: Shard = "seeds", most: int | None = None) -> Layout:
    """All devices of all processes; in a single process only the first `most`, as others would be
    idle.
    """
    devices = jax.devices()[:most] if jax.process_count() == 1 else jax.devices()
    axis = "runs" if shard == "seeds" else ENVS
    return Layout(
        jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices), shard
    )


def largest_kernel(params: Any) -> int:
    """The number of entries of the largest array of several axes."""
    return max((x.size for x in jax.tree.leaves(params) if x.ndim > 1), default=0)


def spread_pays(params: Any) -> bool:
    """True if environments spread over the cores of a CPU as devices make a run faster.

    It depends only on the shapes, so that the decision is the same each time.

    Args:
        params: The parameters of policy and critic, or their shapes.
    """
    return largest_kernel(params) <= SPREAD_KERNEL


def over_runs(
    f: Callable[..., Any], where: Layout, *, exact: bool = False, shared: int = 0
) -> Callable[..., Any]:
    """`f` of one run as a function of n runs, leaves [n, ...], to be jitted within
    `jax.set_mesh(where.mesh)`.

    A device's only run is not vmapped at all.

    Args:
        f: A function of one run.
        where: The devices, and the axis over which they are spread.
        exact: The runs of a device one after the other, each bitwise identical to a single-seed
            run; else vmapped, in which products of a batch are rounded in another order.
        shared: The number of last arguments that all runs share.
    """

    def many(*args: Any) -> Any:
        each, same = args[: len(args) - shared], args[len(args) - shared :]
        num_runs = len(jax.tree.leaves(each)[0])
        if num_runs == 1:
            only = f(*jax.tree.map(lambda x: x[0], each), *same)
            return jax.tree.map(lambda x: jnp.expand_dims(x, 0), only)
        if exact:
            return jax.lax.map(lambda run: f(*run, *same), each)
        with vmapped(num_runs):
            return jax.vmap(lambda *run: f(*run, *same))(*each)

    if where.shard == "envs":
        return many
    spec = where.sharding.spec

    # shard_map and not only jit: a loop whose length depends on data would have one length for all
    # devices.
    def spread(*args: Any) -> Any:
        specs = (spec,) * (len(args) - shared) + (PartitionSpec(),) * shared
        return jax.shard_map(
            many, mesh=where.mesh, in_specs=specs, out_specs=spec, check_vma=False
        )(*args)

    return spread


@contextlib.contextmanager
def vmapped(num_runs: int) -> Iterator[None]:
    """A context for tracing runs that are vmapped on a device, and so share its cores and memory.

    num_runs: their number.
    """
    token = _mapped.set(num_runs)
    try:
        yield
    finally:
        _mapped.reset(token)


def mapped_runs() -> int:
    """The number of runs per device in the context `vmapped`; 1 outside."""
    return _mapped.get()


def envs_are_spread() -> bool:
    """True in a trace over all environments, which are spread over the devices."""
    return ENVS in jax.sharding.get_abstract_mesh().auto_axes


def spread_envs(tree: Any) -> Any:
    """Leaves [B, ...] with their environments spread over the devices, if the layout spreads those.

    Unchanged if B is not a multiple of the number of devices.
    """
    if not envs_are_spread():
        return tree
    mesh, spec = jax.sharding.get_abstract_mesh(), PartitionSpec(ENVS)

    def one(x: jax.Array) -> jax.Array:
        return x if x.shape[0] % mesh.size else jax.lax.with_sharding_constraint(x, spec)

    return jax.tree.map(one, tree)


def gather_envs(tree: Any) -> Any:
    """Leaves replicated on every device, if their environments are spread: once, before parts of
    them are drawn many times.
    """
    if not envs_are_spread():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def over_envs(f: Callable[..., Any], *args: Any, total: bool = False) -> Any:
    """`f(*args)` of leaves [T, B, ...]; each device computes its own environments.

    Each computes all environments if they are not spread, or B is not a multiple of the number of
    devices.

    Args:
        f: Returns leaves [T, B, ...], each environment separately; or, with `total`, a sum over the
            environments.
        *args: Leaves [T, B, ...].
        total: Sum the results over the devices.
    """
    num_envs = jax.tree.leaves(args)[0].shape[1]
    if not envs_are_spread() or num_envs % jax.sharding.get_abstract_mesh().size:
        return f(*args)
    # Otherwise a loop that adds would communicate in every iteration, and a product over time and
    # environments as one axis would make every device gather and compute everything.
    each = PartitionSpec(None, ENVS)
    if total:
        local, out = lambda *own: _psum(f(*own)), PartitionSpec()
    else:
        local, out = f, each
    return jax.shard_map(local, in_specs=each, out_specs=out, check_vma=False)(*args)


def _psum(tree: Any) -> Any:
    """The sum of every leaf over the devices, in one exchange for each type of number."""
    # Leaf by leaf the devices of a CPU would synchronise as often, which takes longer than the
    # gradient of a minibatch.
    leaves, treedef = jax.tree.flatten(tree)
    for dtype in dict.fromkeys(x.dtype for x in leaves):  # in an order that all processes share
        flat, unravel = ravel_pytree([x for x in leaves if x.dtype == dtype])
        sums = iter(unravel(jax.lax.psum(flat, ENVS)))
        leaves = [next(sums) if x.dtype == dtype else x for x in leaves]
    return jax.tree.unflatten(treedef, leaves)


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Places arrays that every process has in full on the devices."""

    # Part by part: for the full array `device_put` would first compare the copies of all processes.
    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        here = sharding.addressable_devices_indices_map(x.shape)
        parts = [jax.device_put(x[index], device) for device, index in here.items()]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)

    return jax.tree.map(one, tree)


def fetch(tree: Any, where: Layout) -> Any:
    """The arrays on the devices of all processes, as numpy arrays, in full in every process.

    Raises ConnectionError where another process has ended.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    with _with_peers():
        in_full = jax.jit(_same, out_shardings=where.everywhere)(tree)
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), in_full)


def use_cpu_cores(count: int | None) -> bool:
    """Splits the CPU into this many devices; None: as many as this process has cores.

    Without effect on the devices of an accelerator. Returns False if something has been computed in
    this process already: the devices then stay as they are.
    """
    try:
        jax.config.update("jax_num_cpu_devices", cores.num_cores() if count is None else count)
    except RuntimeError:
        return False
    return True


def use_matmul_precision(precision: MatmulPrecision) -> None:
    """Sets the precision of float32 matrix products and convolutions, in all programs that are
    compiled afterwards.

    Args:
        precision: The lowest that an accelerator may use; the actual one depends on the hardware. A
            CPU always computes in float32.
    """
    jax.config.update("jax_default_matmul_precision", precision)


def check_everything() -> None:
    """Makes jax check for leaked tracers and for keys that are used twice. Slow."""
    jax.config.update("jax_check_tracer_leaks", True)
    jax.config.update("jax_debug_key_reuse", True)


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process part of a job, before anything is computed.

    Under SLURM, Open MPI, Kubernetes and on TPU pods JAX finds the others by itself; elsewhere all
    three arguments are needed.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: The number of processes.
        process_id: The number of this one.

    Raises:
        ValueError: There is no cluster, or something has been computed in this process.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=2 * HEARTBEAT,
        )
    except RuntimeError as error:
        raise ValueError(
            f"this process cannot become one of several, as JAX is in use in it already: {error}"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"no cluster was found ({error}): give --coordinator HOST:PORT, --num-processes and "
            f"--process-id"
        ) from None


def is_first() -> bool:
    """True in the process that prints and writes."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """The `value` of the first process, in all processes; at most 2³¹ - 1."""
    return settled(min(value, 2**31 - 1), 0)[0]


def shared(tree: Any) -> Any:
    """The arrays of the first process, in all processes; the others pass some of the same shapes
    and types.
    """
    if jax.process_count() == 1:
        return tree
    with _with_peers():
        return multihost_utils.broadcast_one_to_all(tree)


def settled(first: int, largest: int) -> tuple[int, int]:
    """The `first` of the first process and the largest `largest` of all, in all processes, by one
    exchange.
    """
    if jax.process_count() == 1:
        return first, largest
    with _with_peers():
        own = np.array([first, largest], np.int32)
        of_all = np.asarray(multihost_utils.process_allgather(own))
    return int(of_all[0, 0]), int(of_all[:, 1].max())


@contextlib.contextmanager
def _with_peers() -> Iterator[None]:
    """An exchange with the other processes. Raises ConnectionError where one of them has ended."""
    try:
        yield
    except (
        jax.errors.JaxRuntimeError,
        ValueError,
    ) as error:  # either, depending on where it is noticed
        reason = str(error).splitlines()[0][:200]
        raise ConnectionError(
            f"another process of this job has ended; start all of them again ({reason})"
        ) from None


def _same(tree: Any) -> Any:
    return tree
