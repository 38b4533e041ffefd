"""Strict arithmetic for every test, and 64-bit floats for those that check identities."""

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jaxtyping import install_import_hook

# The modules whose signatures are checked at every call: the shapes of arrays, and results.
TYPED = (
    "pg.distributions",
    "pg.networks",
    "pg.layers",
    "pg.images",
    "pg.trajectory",
    "pg.rollout_noise",
    "pg.window_resets",
    "pg.branch_rollouts",
    "pg.rollout",
    "pg.returns",
    "pg.baselines",
    "pg.surrogates",
    "pg.rounding",
    "pg.normalisation",
    "pg.estimators",
    "pg.exact",
    "pg.diagnostics",
    "pg.optimizers",
    "pg.nonfinite",
    "pg.train",
    "pg.evaluation",
)
if __debug__:  # under `python -O` nothing would be checked
    install_import_hook(TYPED, "signatures.checked")

# The helpers that assert: what they compare is shown, and `python -O` leaves it in.
pytest.register_assert_rewrite("adapter_contract", "figures", "mistakes", "scripts")
jax.config.update("jax_numpy_rank_promotion", "raise")
# A second run of the tests need not compile again.
jax.config.update(
    "jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "compilations")
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Most of the processor time of the fast tests is the compiler's: four files of the core took 172 s
# without these flags, and take 112 s with them. XLA's older code generator, which jaxlib 0.11 no
# longer has, is the larger part; then one module per program, and narrow vectors.
CHEAP_COMPILATION = (
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_prefer_vector_width=128",
)
if jax.__version_info__ >= (0, 11):  # there a flag that is unknown ends the process
    CHEAP_COMPILATION = CHEAP_COMPILATION[1:]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--ids C1 J7` runs the tests of these promises of docs/reliability.md, slow or not."""
    parser.addoption(
        "--ids", nargs="+", metavar="ID", help="run only the acceptance tests of these ids"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Ids select among all tests; the fast tests, whose time is the compiler's, use fewer
    optimizations.
    """
    if config.option.ids:
        config.option.markexpr = ""
    if config.option.markexpr == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)
        # In the environment, so that the scripts that they start ask for the same.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *CHEAP_COMPILATION))
        share_a_context_of_the_compiler()


contexts: list[Any] = []  # that of the module, once a program has been lowered


def share_a_context_of_the_compiler() -> None:
    """JAX lowers each program in a new context of MLIR, whose dialects take 4 ms to load, and keeps
    it until cycles are collected. The programs that the main thread lowers in a module share one,
    where JAX has the names that this replaces; but for those that are compiled while another is
    lowered, whose context is taken.
    """
    try:
        from jax._src.interpreters import mlir
        from jax._src.lib.mlir import ir

        make = mlir.make_ir_context
    except (ImportError, AttributeError):
        return

    def is_lowering() -> bool:
        try:
            return ir.Context.current is not None
        except ValueError:  # this thread is in no context
            return False

    def shared() -> Any:
        if is_lowering() or threading.current_thread() is not threading.main_thread():
            return make()
        if not contexts:
            contexts.append(make())
        return contexts[0]

    mlir.make_ir_context = shared


def pytest_collection_finish(session: pytest.Session) -> None:
    """With the fast tests the collector of cycles leaves the libraries alone, among whose millions
    of objects it would look again and again, and looks seldom: a module ends with a collection.
    """
    if session.config.option.markexpr != "not slow":
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests that --ids requests."""
    if config.option.ids:
        wanted = set(config.option.ids)
        items[:] = [
            i for i in items if any(wanted & set(m.args) for m in i.iter_markers("acceptance"))
        ]


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_end_with_their_module() -> Iterator[None]:
    """A compiled program holds memory maps, of which a process may have 65,530: the whole suite
    would need more, and the compiler would end in a segmentation fault.
    """
    yield
    if "pg.runs.execution" in sys.modules:
        sys.modules["pg.runs.execution"].forget_programs()
    jax.clear_caches()
    contexts.clear()
    gc.collect()


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """No test may contact another machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit floats: identities hold to 1e-12."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
