"""Every random key is used once: a recorder of all that are drawn from, split or folded."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MDP, TINY

from pg.config import Config
from pg.train import make_learner, training_keys

KEY = jax.random.key(0)
WINDOWS = Config(
    env=MDP, estimator="ppo", collect="windows",
    num_envs=4, num_steps=8, num_updates=3, num_epochs=2,
    num_minibatches=2, hidden_sizes=(), preset=None
)  # fmt: skip


class Recorder:
    """The use of every key: drawn from or split, or folded with a number, once per run of the
    program.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.consumed, self.folded = Counter[bytes](), Counter[tuple[bytes, bytes]]()
        for name, f in inspect.getmembers(jax.random, callable):
            parameters = list(inspect.signature(f).parameters) if inspect.isroutine(f) else []
            if parameters[:1] == ["key"] and name not in ("clone", "key_data", "key_impl"):
                monkeypatch.setattr(jax.random, name, self.watched(name, f))

    def watched(self, name: str, f: Callable[..., Any]) -> Callable[..., Any]:
        """`f`, with a note of its key."""

        def recorded(key: jax.Array, *args: Any, **kwargs: Any) -> Any:
            data = (
                jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
            )
            if name == "fold_in":
                jax.debug.callback(self.fold, data, *args, **kwargs)
            else:
                jax.debug.callback(self.consume, data)
            return f(key, *args, **kwargs)

        return recorded

    def consume(self, data: Any) -> None:
        """Notes one key, or several [..., 2]."""
        self.consumed.update(row.tobytes() for row in np.asarray(data).reshape(-1, 2))

    def fold(self, key: Any, data: Any) -> None:
        """Notes a key and what it was folded with."""
        self.folded[np.asarray(key).tobytes(), str(int(data)).encode()] += 1

    def reused(self) -> int:
        """Keys used twice, or in two ways."""
        jax.effects_barrier()
        parents = {key for key, _ in self.folded}
        twice = [n for n in (*self.consumed.values(), *self.folded.values()) if n > 1]
        return len(twice) + len(parents & set(self.consumed))


@pytest.mark.slow
@pytest.mark.acceptance("J1")
@pytest.mark.parametrize("config", [WINDOWS, TINY], ids=["windows", "episodes"])
def test_every_key_is_used_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that are drawn from, split or folded in three updates, those within a vmap too."""
    recorder = Recorder(monkeypatch)
    init_key, keys = training_keys(KEY, 0, 3)
    learner = make_learner(config)
    jax.block_until_ready(
        jax.jit(lambda k, ks: jax.lax.scan(learner.step, learner.init(k), ks))(init_key, keys)
    )
    assert recorder.reused() == 0
    assert len(recorder.consumed) > 50
    assert len(recorder.folded) > 5


@pytest.mark.acceptance("J1")
@pytest.mark.parametrize(
    "f",
    [
        lambda key: jax.random.normal(key) + jax.random.uniform(key),
        lambda key: jax.random.normal(key) + jax.random.uniform(jax.random.split(key)[0]),
        lambda key: (
            jax.random.normal(jax.random.fold_in(key, 0))
            + jax.random.uniform(jax.random.fold_in(key, 0))
        ),
        lambda key: (
            jax.vmap(lambda x: x + jax.random.normal(key))(jnp.arange(2.0)) + jax.random.bits(key)
        ),
    ],
)
def test_the_recorder_sees_a_reuse(f: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    jax.block_until_ready(jax.jit(lambda key: f(key))(KEY))
    assert recorder.reused() > 0
