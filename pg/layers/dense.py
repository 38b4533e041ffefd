"""Dense layers: the product with the weights, their initialisation, and nonlinearities."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PRNGKeyArray

from pg.config import Initialiser

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Activation",
    "dense",
    "forward_mode",
    "layer_norm",
    "orthogonal",
]

# Rows of the largest matrix that is orthonormalised row by row, and of a block of larger ones: the
# fastest of 16, 32, 64 and 128 for 1024 x 1024 on a CPU.
MOST_ROWS, ROWS_OF_BLOCK = 256, 16

# On a CPU, the gradient of a kernel with at most this many entries, from this many rows on, uses an
# explicitly transposed factor. It is not faster for 1024 x 1024, and slower for 128 rows
# (experiments/speed/kernel_gradients.py).
SMALL_KERNEL, FEWEST_ROWS = 256 * 256, 192

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


def dense(
    features: int, scale: float, initialiser: Initialiser = "orthogonal", bias: float = 0.0
) -> nn.Dense:
    """A dense layer in the canonical float. Its weights are `scale` times an orthogonal matrix, or
    from another initialiser; each entry of its bias starts at `bias`.

    So under jax_enable_x64 a whole network is float64.
    """
    return nn.Dense(
        features,
        kernel_init=orthogonal(scale) if initialiser == "orthogonal" else INITIALISERS[initialiser],
        bias_init=nn.initializers.constant(bias),
        param_dtype=jnp.zeros(()).dtype,
        dot_general=_rows_times_kernel,
    )


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
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], *_: Any, **__: Any
) -> Float[Array, "*B O"]:
    """x [..., I] times kernel [I, O], with all leading axes flattened into one.

    For rows [T, B, I] XLA sums the kernel's gradient over two axes, which on a CPU took 2.6 times
    as long as over a single axis (256 rows of 64, jax 0.10.2).
    """
    rows = x.reshape(-1, x.shape[-1])
    product = _with_transposed_gradient if _has_fast_transpose(rows, kernel) else jnp.matmul
    return product(rows, kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _has_fast_transpose(x: Float[Array, "R I"], kernel: Float[Array, "I O"]) -> bool:
    """True if `_with_transposed_gradient` is faster: on a CPU, in reverse mode, for many rows and a
    small kernel with more than one output (with one output the gradient is a matrix-vector
    product).
    """
    is_small = kernel.shape[1] > 1 and kernel.size <= SMALL_KERNEL
    num_rows = x.shape[0]
    # An exported program has an unknown number of rows, and no gradient.
    has_many_rows = isinstance(num_rows, int) and num_rows >= FEWEST_ROWS
    is_fast = is_small and has_many_rows and jax.default_backend() == "cpu"
    return is_fast and not _forward_mode.get()


@jax.custom_jvp
def _with_transposed_gradient(
    x: Float[Array, "R I"], kernel: Float[Array, "I O"]
) -> Float[Array, "R O"]:
    """x times kernel, [R, O], whose kernel gradient xᵀ g contracts columns with rows.

    On a CPU a product that contracts the rows of both factors is slow. So the narrower of the two
    is explicitly transposed in memory: xᵀ as [I, R], or gᵀ as [O, R] for (gᵀ x)ᵀ. Barriers keep XLA
    from folding the transposes into the product.
    """
    return x @ kernel


def _times_tangent(x: Float[Array, "R I"], dkernel: Float[Array, "I O"]) -> Float[Array, "R O"]:
    """x dkernel, with transposes around a barrier that reverse mode turns into explicit ones."""
    held = jax.lax.optimization_barrier
    inputs, outputs = dkernel.shape
    if inputs < outputs:
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
