"""Dependent action noise for a batch of complete episodes.

    independent      every episode draws independent noise
    antithetic       pairs of episodes: u and 1 - u, that is ε and -ε (Hammersley & Morton 1956)
    stratified       the first action's: one episode in each of N equal cells of [0, 1)
    latin_hypercube  the same at every step (McKay, Beckman & Conover 1979)
    sobol            an episode is one Sobol' point, a dimension for each step and component of
                     the action, scrambled (Arnold et al. 2022, 2202.07808)
    array            at each step a Sobol' point for each episode, in the order of their states
                     (array-RQMC, L'Ecuyer, Lécot & Tuffin 2008)

Each is marginally exact: the noise of every single episode is independent from step to step and has
the policy's distribution, so that the batch mean of any function of one episode keeps its
expectation. Functions that compare episodes do not, since the episodes of a batch are no longer
independent. The environment's own noise stays independent, unless its initial states and
transitions are drawn from points as well (`pg.fast.point_keys`).

Each number is made from 32 random bits, which the inverse distribution function maps to the noise
of a distribution (`noise_quantile`). A point u is the middle of one of 2²³ equal cells of [0, 1),
or 2³² with 64-bit floats, so that 1 - u is one too, and neither is 0.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped, UInt32

from pg import numerals
from pg.inputs import described
from pg.settings.choices import Sampling

MOST_DIMENSIONS = 21201  # of the Sobol' sequence in scipy (Joe & Kuo 2008)
MOST_ENTRIES = 64  # of an observation by which states are sorted
_DIGITS = 32

# key, number of the step -> 32 random bits for each of N episodes and d numbers, of E batches
Bits = Callable[[PRNGKeyArray, Any], UInt32[Array, "E N d"]]


class BatchNoise(NamedTuple):
    """The sampling of the noise of a batch of episodes."""

    sampling: Sampling
    num_episodes: int  # per batch; different batches are independent
    of_env: bool = False  # also the environment's noise: initial states and transitions


class EnvNumbers(NamedTuple):
    """The random numbers of one environment that points replace."""

    reset: int = 0
    step: int = 0


NO_NUMBERS = EnvNumbers()  # for independent noise of the environment


class StepNoise(NamedTuple):
    """The noise of a step of B episodes."""

    action: PyTree  # in the form of `dist.draw`, leaves [B, ...]
    # bits for the environment's draws; () for independent noise
    env: UInt32[Array, "B d"] | tuple[()] = ()


def make_noise(
    dist: Any,
    batch_noise: BatchNoise,
    num_envs: int,
    horizon: int,
    env_numbers: EnvNumbers = NO_NUMBERS,
) -> Callable[[PRNGKeyArray, Int[Array, ""]], StepNoise]:
    """The noise of a step: key, index of the step -> noise of the actions and of the environment.

    With "array" the noise is in the order in which `by_state` assigns it.

    Args:
        dist: The distribution of the actions, of which only shapes are used.
        batch_noise: How it is drawn.
        num_envs: The number of episodes, in one batch or several.
        horizon: The steps of an episode; "sobol" covers as many as it has dimensions for, and later
            ones are independent.
        env_numbers: The random numbers of the environment to be drawn in this way.

    Raises:
        ValueError: The distribution has no `noise_quantile`, or the number of environments is not a
            multiple of the batch size.
    """
    sampling, num_episodes = batch_noise.sampling, batch_noise.num_episodes
    if sampling == "independent":
        return lambda key, time: StepNoise(dist.draw(key))
    _check_batches(batch_noise, num_envs)
    if not hasattr(dist, "noise_quantile"):
        raise ValueError(
            f"sampling={sampling!r} makes the noise of an action from uniform numbers, and "
            f"{described(dist)} has no method noise_quantile(uniform), which gives it: write "
            "one, or sampling='independent'"
        )
    treedef: Any
    leaves, treedef = jax.tree.flatten(jax.eval_shape(dist.draw, jax.random.key(0)))
    sizes = [math.prod(x.shape[1:]) for x in leaves]
    shape = num_envs // num_episodes, num_episodes, sum(sizes) + env_numbers.step
    bits_of = _make_bits(sampling, shape, horizon, before=env_numbers.reset)

    def noise(key: PRNGKeyArray, time: Int[Array, ""]) -> StepNoise:
        bits = bits_of(key, time).reshape(num_envs, -1)
        *parts, of_env = jnp.split(bits, np.cumsum(sizes), axis=1)
        pairs = zip(parts, leaves, strict=True)
        uniform = [_uniform(part.reshape(x.shape), x.dtype) for part, x in pairs]
        of_actions = dist.noise_quantile(treedef.unflatten(uniform))
        return StepNoise(of_actions, of_env if env_numbers.step else ())

    return noise


def start_bits(
    key: PRNGKeyArray, batch_noise: BatchNoise, num_envs: int, numbers: int
) -> UInt32[Array, "B d"]:
    """The bits for the initial states of a batch of episodes.

    Args:
        key: A random key.
        batch_noise: How they are drawn.
        num_envs: The number of episodes, in one batch or several.
        numbers: d, the random numbers of each initial state.

    Raises:
        ValueError: The number of environments is not a multiple of the batch size.
    """
    _check_batches(batch_noise, num_envs)
    num_episodes = batch_noise.num_episodes
    shape = num_envs // num_episodes, num_episodes, numbers
    bits = _make_bits(batch_noise.sampling, shape, 1)(key, jnp.int32(0))
    return bits.reshape(num_envs, numbers)


def check_sortable(obs_shape: Any) -> None:
    """Raises ValueError unless states can be sorted by their observations: vectors of at most
    `MOST_ENTRIES` entries. obs_shape: the shape of the policy's observation.
    """
    is_vector = isinstance(obs_shape, tuple) and len(obs_shape) == 1
    if not (is_vector and isinstance(obs_shape[0], int) and obs_shape[0] <= MOST_ENTRIES):
        raise ValueError(
            f"sampling='array' sorts states by their observation, which must be a vector of at "
            f"most {MOST_ENTRIES} entries, got shape {obs_shape}: choose entries by observe, or "
            "write sampling='sobol'"
        )


def by_state(
    noise: PyTree[Shaped[Array, "B ..."]],
    obs: Float[Array, "B D"],
    alive: Bool[Array, " B"],
    num_episodes: int,
) -> PyTree[Shaped[Array, "B ..."]]:
    """The noise of a step, assigned in the order of the states of each batch.

    The order is lexicographic in the entries of the observation: for one entry its order, for
    one-hot vectors that of the states' indices, from last to first, and for several continuous
    entries that of the first. Episodes that have ended come last.

    Args:
        noise: The result of `make_noise` with "array".
        obs: The observations.
        alive: The episodes that have not ended.
        num_episodes: The number of episodes per batch.
    """

    def ranks(obs: Float[Array, "N D"], alive: Bool[Array, " N"]) -> Int[Array, " N"]:
        # the last key of lexsort is the first to be compared
        order = jnp.lexsort([*obs.T[::-1], ~alive])
        return jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))

    batches = obs.reshape(-1, num_episodes, obs.shape[1]), alive.reshape(-1, num_episodes)
    rank = jax.vmap(ranks)(*batches)
    first = num_episodes * jnp.arange(len(rank), dtype=rank.dtype)
    place = (first[:, None] + rank).reshape(-1)
    return jax.tree.map(lambda x: x[place], noise)


def _check_batches(batch_noise: BatchNoise, num_envs: int) -> None:
    """Raises ValueError unless the environments are whole batches that can be sampled like this."""
    sampling, num_episodes = batch_noise.sampling, batch_noise.num_episodes
    if num_envs % num_episodes:
        raise ValueError(
            f"num_episodes must divide the {numerals.counted(num_envs, 'environment')}, got "
            f"{num_episodes}"
        )
    if sampling == "antithetic" and num_episodes % 2:
        raise ValueError(
            f"num_episodes must be even with sampling='antithetic', got {num_episodes}"
        )


def _make_bits(
    sampling: Sampling, shape: tuple[int, int, int], horizon: int, before: int = 0
) -> Bits:
    """The random bits of a step, for E batches of N episodes and d numbers: shape [E, N, d].

    Args:
        sampling: How they are drawn.
        shape: E, N and d.
        horizon: The steps of an episode.
        before: The number of dimensions of the Sobol' sequence that the initial state uses.
    """
    batches, episodes, size = shape

    def independent(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        return _random_bits(key, shape)

    def antithetic(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        half = _random_bits(key, (batches, episodes // 2, size))
        return jnp.stack([half, ~half], axis=2).reshape(shape)

    def latin_hypercube(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        cell_key, within_key = jax.random.split(key)
        cells = jnp.broadcast_to(jnp.arange(episodes, dtype=jnp.uint32)[:, None], shape)
        cells = jax.random.permutation(cell_key, cells, axis=1, independent=True)
        return _in_cell(cells, independent(within_key, time), episodes)

    def stratified(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        first_key, later_key = jax.random.split(key)
        later = independent(later_key, time)
        return jnp.where(time == 0, latin_hypercube(first_key, time), later)

    def sobol(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        scramble_key, later_key = jax.random.split(key)
        covered = min(horizon, (MOST_DIMENSIONS - before) // size)
        if not covered:
            return independent(later_key, time)
        numbers = _direction_numbers(before + covered * size, _digits_of(episodes))[before:]
        step = jnp.minimum(time, covered - 1)  # a block of steps may go beyond the horizon
        own = jnp.asarray(numbers.reshape(covered, size, -1))[step]
        points = _scrambled(scramble_key, own, shape)
        if covered == horizon:
            return points
        return jnp.where(time < covered, points, independent(later_key, time))

    def array(key: PRNGKeyArray, time: Any) -> UInt32[Array, "E N d"]:
        numbers = _direction_numbers(size, _digits_of(episodes))
        return _scrambled(key, jnp.asarray(numbers), shape)

    makers = {
        "independent": independent,
        "antithetic": antithetic,
        "stratified": stratified,
        "latin_hypercube": latin_hypercube,
        "sobol": sobol,
        "array": array,
    }
    return makers[sampling]


def _random_bits(key: PRNGKeyArray, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    return jax.random.bits(key, shape, jnp.uint32)


def _uniform(bits: UInt32[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The middle of the cell of [0, 1) that the random bits select; never 0 or 1.

    The number of cells matches the precision of the floats, so that u and 1 - u are exact.
    """
    digits = min(int(jnp.finfo(dtype).nmant), _DIGITS)
    cell = (bits >> (_DIGITS - digits)).astype(dtype)
    return (cell + 0.5) * 2.0**-digits


def _in_cell(
    cell: UInt32[Array, "..."], within: UInt32[Array, "..."], count: int
) -> UInt32[Array, "..."]:
    """⌊(cell 2³² + within) / count⌋: a number in one of `count` equal parts of the 2³².

    It is exactly uniform if `cell` is uniform below `count` and `within` below 2³². By long
    division, as there are no 64-bit integers.
    """

    divisor = np.uint32(count)

    def digit(loop: tuple[Array, Array], shift: Array) -> tuple[tuple[Array, Array], None]:
        quotient, remainder = loop
        remainder = 2 * remainder + ((within >> shift) & 1)
        fits = remainder >= divisor
        remainder = jnp.where(fits, remainder - divisor, remainder)
        return (2 * quotient + fits.astype(jnp.uint32), remainder), None

    shifts = jnp.arange(_DIGITS - 1, -1, -1, dtype=jnp.uint32)  # the first digit first
    return jax.lax.scan(digit, (jnp.zeros_like(cell), cell), shifts)[0][0]


def _digits_of(count: int) -> int:
    """The binary digits of the numbers below `count`."""
    return max(1, (count - 1).bit_length())


@functools.cache
def _direction_numbers(dimensions: int, digits: int) -> np.ndarray:
    """The direction numbers of the first dimensions of the Sobol' sequence, uint32 [D, digits]:
    point i is the exclusive or of those of the digits of i.
    """
    from scipy.stats import qmc  # only now, as it takes a second to import

    sequence = qmc.Sobol(dimensions, scramble=False, bits=_DIGITS)
    columns, drawn = [], 0
    before = np.zeros(dimensions, np.uint32)
    for digit in range(digits):
        # scipy's points are in Gray code order: point 2ᵏ has the digits k and k - 1
        number = 2**digit
        sequence.fast_forward(number - drawn)
        drawn = number + 1
        point = (sequence.random(1)[0] * 2.0**_DIGITS).astype(np.uint32)
        before = point ^ before
        columns.append(before)
    return np.stack(columns, axis=1)


def _scrambled(
    key: PRNGKeyArray, numbers: UInt32[Array, "d k"], shape: tuple[int, int, int]
) -> UInt32[Array, "E N d"]:
    """The first N Sobol' points, scrambled for each batch and dimension by a random matrix and a
    random shift.

    The matrix is lower triangular in the binary digits, and the shift an exclusive or with random
    digits (Matoušek 1998). The shift alone makes each point uniform, in each dimension given all
    others, which averages over a batch require (`Facts.pools_episodes`); with the matrix the
    variance of an integral is that of Owen's nested scrambling (Owen 2003).

    Args:
        key: A random key.
        numbers: The direction numbers of d dimensions.
        shape: E, N and d.
    """
    batches, episodes, size = shape
    matrix_key, shift_key = jax.random.split(key)
    # the value of each binary digit, the first one first
    values = (np.uint32(1) << np.arange(_DIGITS - 1, -1, -1, dtype=np.uint32))[None, None]
    earlier = ~(values | (values - np.uint32(1)))
    rows = _random_bits(matrix_key, (batches, size, _DIGITS))
    rows = (rows & earlier) | values
    # a digit of the new direction number is the parity of a matrix row and the old one
    parity = jax.lax.population_count(rows[..., None] & numbers[None, :, None]) & 1
    numbers = jnp.sum(parity * values[..., None], axis=2, dtype=jnp.uint32)
    points = _random_bits(shift_key, (batches, 1, size))
    index = jnp.arange(episodes, dtype=jnp.uint32)[None, :, None]
    for digit in range(numbers.shape[-1]):
        points = points ^ (numbers[:, None, :, digit] * ((index >> digit) & 1))
    return points
