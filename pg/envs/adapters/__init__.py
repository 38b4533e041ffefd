"""Environments of other libraries: `make("library:environment")` gives one that pg accepts wherever
it accepts a name.

    make("brax:inverted_pendulum")    make("jumanji:Snake-v1")    make("navix:Navix-Empty-5x5-v0")

One module per library, loaded on demand. Each has two functions, `make(name,
**options)`, whose options go to the library's own constructor, and `adapt`, for an environment that
is already built. The recipe for another library is to write these two: `adapt` states the library's
reset and step as the two functions that `Adapter` takes (`pg/envs/adapters/base.py`), and a row in
`ADAPTERS` gives it its name. Three things need care, and each module documents them: the
library must not reset by itself, so that the successor of the last step is the true one; its time
limit must not count as termination; and its state must not contain typed random keys. The contract
of adapters, `tests/core/test_adapter_contract.py`, compares each with its library's own loop.
"""

import importlib
from typing import TYPE_CHECKING, Any

import lazy_loader

from pg.inputs import check_name, shown

if TYPE_CHECKING:
    from pg.envs.adapters.base import faults_in_one_sentence as faults_in_one_sentence

__all__ = ["ADAPTERS", "faults_in_one_sentence", "make"]
# Each library, which is also the name of its extra, and one of its environments.
ADAPTERS = {
    "brax": "inverted_pendulum",
    "craftax": "Craftax-Classic-Symbolic-v1",
    "envpool": "CartPole-v1",
    "gymnasium": "CartPole-v1",
    "jumanji": "Snake-v1",
    "kinetix": "s/h4_thrust_aim",
    "navix": "Navix-Empty-5x5-v0",
    "pgx": "tic_tac_toe",
    "playground": "CartpoleBalance",
    "popgym_arcade": "CountRecallEasy",
    "xminigrid": "MiniGrid-Empty-5x5",
}
# Loaded on first use: names of environments are checked without jax, and each library is imported
# for its own environments alone.
__getattr__, *_ = lazy_loader.attach(
    __name__,
    submodules=[*ADAPTERS, "base", "hosted", "hosts", "python_envs"],
    submod_attrs={"base": ["faults_in_one_sentence"]},
)


def make(name: str, **options: Any) -> Any:
    """The environment "library:environment", with gymnax's interface; options go to the library.

    Raises ValueError for a library that is unknown or not installed, for an unknown name, and if
    the constructor fails.
    """
    if not isinstance(name, str):
        raise ValueError(
            f"name must be of a library and an environment, as in 'gymnasium:CartPole-v1', got "
            f"{shown(name)}; pg.envs.adapters.gymnasium.adapt takes a class of Gymnasium"
        )
    library, _, environment = name.partition(":")
    check_name("environment library", library, ADAPTERS)
    if not environment:
        raise ValueError(
            f"env={name!r} names no environment: write {library}:{ADAPTERS[library]}, for example"
        )
    try:
        module = importlib.import_module(f"pg.envs.adapters.{library}")
    except ModuleNotFoundError as error:
        missing = (error.name or library).partition(".")[0]
        raise ValueError(
            f"env={name!r} needs {missing}, which is not installed: {_install(library, missing)}"
        ) from error
    try:
        return module.make(environment, **options)
    except Exception as error:
        said = str(error).strip()
        if isinstance(error, ValueError) and "\n" not in said:
            raise
        line = said.partition("\n")[0]
        package = f": pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        raise ValueError(
            f"env={name!r} cannot be built: {type(error).__name__}: {line}{package}"
        ) from error


def _install(library: str, missing: str) -> str:
    """The command that installs a missing module of an environment library."""
    if library == "popgym_arcade":
        # It depends on a gymnax that would replace ours, and so is installed without dependencies.
        is_its_own = missing in ("popgym_arcade", "dm_pix")
        return POPGYM_ARCADE if is_its_own else f"pip install {missing}"
    extra = f"pip install -e '.[{library}]'"
    if library == "kinetix":
        return f"{extra} in a separate environment, as it needs jax 0.9.0 at most"
    return extra


POPGYM_ARCADE = "pip install --no-deps popgym-arcade==0.0.7 dm-pix==0.4.5"
