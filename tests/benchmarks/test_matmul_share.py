"""Operations that `experiments/speed/matmul_share.py` counts, against XLA's own count."""

import importlib
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest

from pg import Config, make_env, make_policy

SPEED = Path(__file__).parents[2] / "experiments" / "speed"
NUM_ROWS = 128


@pytest.fixture
def matmul_share(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module("matmul_share")


def flops(f: object, *arguments: object) -> float:
    """Floating-point operations of a program, as XLA counts them."""
    cost = jax.jit(f).lower(*arguments).compile().cost_analysis()  # type: ignore[arg-type]
    return cost["flops"]


def test_operations_of_a_network_are_those_that_xla_counts(matmul_share: ModuleType) -> None:
    env = make_env("CartPole-v1", num_envs=NUM_ROWS)
    policy = make_policy(Config(hidden_sizes=(96, 48)), env)
    params = policy.init(jax.random.key(0))
    obs = jnp.ones((1, NUM_ROWS, 4))
    first = jnp.zeros((1, NUM_ROWS), bool)

    def loss(params: object) -> jax.Array:
        return policy.apply(params, (), obs, first)[1].log_prob(jnp.ones((1, NUM_ROWS), int)).sum()

    kernels = matmul_share.kernel_shapes(params)
    assert kernels == [(4, 96), (96, 48), (48, 2)]
    # activations, biases and the distribution are the rest
    forward = NUM_ROWS * matmul_share.forward_operations(kernels)
    assert forward < flops(loss, params) < 1.1 * forward
    gradient = NUM_ROWS * matmul_share.gradient_operations(kernels)
    assert gradient < flops(jax.grad(loss), params) < 1.1 * gradient
