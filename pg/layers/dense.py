"""Dense layers: the product with the weights, their initialisation, and nonlinearities.

The gradient of a parameter is a sum over the rows of a block. On a CPU the order of a long sum, as
autodiff forms it, depends on the number of cores, and so do its bits. Here the order is fixed: for
kernels by `_with_transposed_gradient`, for parameters that are broadcast over rows by `over_rows`.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from pg.config import Initialiser

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Activation",
    "Dense",
    "dense",
    "forward_mode",
    "layer_norm",
    "orthogonal",
    "over_rows",
]

# Rows of the largest matrix that is orthonormalised row by row, and of a block of larger ones: the
# fastest of 16, 32, 64 and 128 for 1024 x 1024 on a CPU.
MOST_ROWS, ROWS_OF_BLOCK = 256, 16

# On a CPU, the gradient of a kernel uses an explicitly transposed factor from the first number of
# rows on; with more entries than a small kernel, from the second on. With fewer rows that is slower
# (experiments/speed/kernel_gradients.py).
FEWEST_ROWS, FEWEST_ROWS_OF_LARGE, SMALL_KERNEL = 192, 512, 256 * 256
# The order of a plain sum over at most so many rows, with so many entries in all, does not depend
# on the number of cores.
ROWS_OF_SUM, ENTRIES_OF_SUM = 256, 256 * 128

_forward_mode = contextvars.ContextVar("forward_mode", default=False)

Activation = Callable[[Array], Array]  # entry by entry
ACTIVATIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}

# Glorot & Bengio 2010, He et al. 2015 (1502.01852), LeCun et al. 1998.
INITIALISERS: dict[str, Callable[..., Array]] = {
    "glorot_normal": nn.initializers.glorot_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    "lecun_uniform": nn.initializers.lecun_uniform(),
}


class Dense(nn.Module):
    """A dense layer, x W + b, in the canonical float: under jax_enable_x64 a whole network is
    float64.
    """

    features: int
    kernel_init: Callable[..., Array]
    bias_init: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """x: [..., I] -> [..., O]."""
        dtype = jnp.zeros(()).dtype
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), dtype)
        bias = self.param("bias", self.bias_init, (self.features,), dtype)
        # Parameters that were read from a file may be numpy's.
        product = _rows_times_kernel(jnp.asarray(x), jnp.asarray(kernel))
        return product + over_rows(bias, product.shape[:-1])


def dense(
    features: int, scale: float, initialiser: Initialiser = "orthogonal", bias: float = 0.0
) -> Dense:
    """A dense layer. Its weights are `scale` times an orthogonal matrix, or from another
    initialiser; each entry of its bias starts at `bias`.
    """
    of_kernel = orthogonal(scale) if initialiser == "orthogonal" else INITIALISERS[initialiser]
    return Dense(features, of_kernel, nn.initializers.constant(bias))


def over_rows(x: Float[ArrayLike, "*S"], rows: tuple[int, ...]) -> Float[Array, "..."]:
    """A parameter broadcast over rows, [..., *S]. On a CPU the bits of its gradient do not depend
    on the number of cores.

    Args:
        x: The parameter.
        rows: The leading axes of the result.
    """
    x = jnp.asarray(x)
    num_rows = math.prod(rows)
    # An exported program has an unknown number of rows, and no gradient.
    is_known = isinstance(num_rows, int)
    is_short = not is_known or (num_rows <= ROWS_OF_SUM and num_rows * x.size <= ENTRIES_OF_SUM)
    if is_short or jax.default_backend() != "cpu":
        return jnp.broadcast_to(x, (*rows, *x.shape))
    return _over_many_rows(x.reshape(-1), num_rows).reshape(*rows, *x.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _over_many_rows(x: Float[Array, " S"], num_rows: int) -> Float[Array, "R S"]:
    """A vector as [R, S]. Its gradient is a product of ones with [R, S], as XLA would sum over rows
    in an order that depends on the number of cores.
    """
    return jnp.broadcast_to(x, (num_rows, x.size))


@_over_many_rows.defjvp
def _many_rows_of_tangent(
    num_rows: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "R S"], Float[Array, "R S"]]:
    (x,), (dx,) = primals, tangents
    ones = jnp.ones((num_rows, 1), dx.dtype)
    return _over_many_rows(x, num_rows), ones @ dx[None]


@contextlib.contextmanager
def forward_mode() -> Iterator[None]:
    """A context for tracing forward-mode derivatives, such as Hessian-vector products: the
    transposed products of `dense` make those slower.
    """
    token = _forward_mode.set(True)
    try:
        yield
    finally:
        _forward_mode.reset(token)


def layer_norm() -> nn.LayerNorm:
    """Layer normalisation (Ba et al. 2016, 1607.06450) over the last axis, in the canonical
    float.
    """
    return nn.LayerNorm(param_dtype=jnp.zeros(()).dtype)


def _rows_times_kernel(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"]
) -> Float[Array, "*B O"]:
    """x [..., I] times kernel [I, O], with all leading axes flattened into one.

    For rows [T, B, I] XLA sums the kernel's gradient over two axes, which on a CPU took 2.6 times
    as long as over a single axis (256 rows of 64, jax 0.10.2).
    """
    rows = x.reshape(-1, x.shape[-1])
    product = _with_transposed_gradient if _transposes(rows, kernel) else jnp.matmul
    return product(rows, kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _transposes(x: Float[Array, "R I"], kernel: Float[Array, "I O"]) -> bool:
    """True if the kernel's gradient uses a transposed factor: on a CPU, in reverse mode, for many
    rows and more than one output (with one output it is a matrix-vector product).
    """
    num_rows = x.shape[0]
    is_small = kernel.size <= SMALL_KERNEL
    fewest = FEWEST_ROWS if is_small else FEWEST_ROWS_OF_LARGE
    # An exported program has an unknown number of rows, and no gradient.
    has_many_rows = isinstance(num_rows, int) and num_rows >= fewest
    is_matrix = kernel.shape[1] > 1
    in_reverse_mode = not _forward_mode.get()
    return is_matrix and has_many_rows and in_reverse_mode and jax.default_backend() == "cpu"


@jax.custom_jvp
def _with_transposed_gradient(
    x: Float[Array, "R I"], kernel: Float[Array, "I O"]
) -> Float[Array, "R O"]:
    """x times kernel, [R, O], whose kernel gradient xᵀ g contracts columns with rows.

    On a CPU a product that contracts the rows of both factors is slow, and the order of its sum
    depends on the number of cores. So the narrower of the two is explicitly transposed in memory:
    xᵀ as [I, R], or gᵀ as [O, R] for (gᵀ x)ᵀ. Barriers keep XLA from folding the transposes into
    the product.
    """
    return x @ kernel


def _times_tangent(x: Float[Array, "R I"], dkernel: Float[Array, "I O"]) -> Float[Array, "R O"]:
    """x dkernel, with transposes around a barrier that reverse mode turns into explicit ones."""
    held = jax.lax.optimization_barrier
    inputs, outputs = dkernel.shape
    if inputs <= outputs:
        return held(x.T).T @ dkernel
    return held((x @ held(dkernel.T).T).T).T


def _tangent_of_product(
    primals: tuple[Array, Array], tangents: tuple[Any, Any]
) -> tuple[Float[Array, "R O"], Float[Array, "R O"]]:
    """x times kernel, and its derivative along the tangents.

    In reverse mode the kernel's part becomes the product of `_with_transposed_gradient`; forward
    mode has the usual order.
    """
    (x, kernel), (dx, dkernel) = primals, tangents
    product = _with_transposed_gradient(x, kernel)
    tangent = jnp.zeros_like(product)
    if not isinstance(dx, SymbolicZero):
        tangent = dx @ kernel
    if not isinstance(dkernel, SymbolicZero):
        of_kernel = _times_tangent(x, dkernel)
        tangent = of_kernel if isinstance(dx, SymbolicZero) else tangent + of_kernel
    return product, tangent


_with_transposed_gradient.defjvp(_tangent_of_product, symbolic_zeros=True)


def orthogonal(scale: float) -> Callable[..., Array]:
    """An initialiser: `scale` times a uniformly distributed matrix with orthonormal columns (or
    rows).

    Gram-Schmidt on a Gaussian matrix: the distribution of Saxe et al. 2014 (1312.6120). No LAPACK,
    whose batched QR can deadlock when initialisers are vmapped over seeds.
    """

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = None) -> Float[Array, "..."]:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        gaussian = jax.random.normal(key, (min(rows, columns), max(rows, columns)), dtype)
        basis = _orthonormal_rows(gaussian)
        return scale * (basis if rows < columns else basis.T).reshape(shape)

    return init


# flax traces the initialisers whenever a network is traced, as it compares the shapes of parameters
# with theirs; a jitted function is traced once per shape.
@jax.jit
def _orthonormal_rows(matrix: Float[Array, "K N"]) -> Float[Array, "K N"]:
    """The rows, each minus its projection onto the previous ones and normalised; K <= N.

    Many rows are processed in blocks, since a product with the previous rows then reads them once
    per block instead of once per row.
    """
    count = len(matrix)
    if count <= MOST_ROWS:
        return _gram_schmidt(matrix)
    num_blocks = -(-count // ROWS_OF_BLOCK)
    padded = jnp.pad(matrix, ((0, num_blocks * ROWS_OF_BLOCK - count), (0, 0)))

    def add_block(i: Array, basis: Float[Array, "L N"]) -> Float[Array, "L N"]:
        block = jax.lax.dynamic_slice_in_dim(padded, i * ROWS_OF_BLOCK, ROWS_OF_BLOCK)
        for _ in range(2):  # the second pass removes the rounding error of the first
            block = _gram_schmidt(block - (block @ basis.T) @ basis)
        return jax.lax.dynamic_update_slice_in_dim(basis, block, i * ROWS_OF_BLOCK, 0)

    return jax.lax.fori_loop(0, num_blocks, add_block, jnp.zeros_like(padded))[:count]


def _gram_schmidt(matrix: Float[Array, "K N"]) -> Float[Array, "K N"]:
    """The same row by row; a zero row stays zero."""
    smallest = jnp.finfo(matrix.dtype).tiny

    def add_row(j: Array, basis: Float[Array, "K N"]) -> Float[Array, "K N"]:
        v = matrix[j]
        for _ in range(2):
            v = v - (basis @ v) @ basis
        return basis.at[j].set(v / jnp.maximum(jnp.linalg.norm(v), smallest))

    return jax.lax.fori_loop(0, len(matrix), add_row, jnp.zeros_like(matrix))
