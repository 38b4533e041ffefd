"""pg: a laboratory for policy gradients in JAX. The public names are listed in `__init__.pyi`."""

from typing import Any

import lazy_loader

__version__ = "0.1.0"

# Imports on first use, so that `import pg` and `--help` need not wait for jax and gymnax.
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name in __all__:
        return _load(name)
    raise AttributeError(f"module 'pg' has no attribute {name!r}{_hint(name)}", name=name)


def _hint(name: str) -> str:
    """The name here that a name of another library stands for, as the end of a sentence."""
    if name.startswith("_"):  # asked for by tools
        return ""
    from pg.estimators.names import NAMES
    from pg.inputs import ALIASES, nearest

    estimator = ALIASES.get(name.lower(), name.lower())
    if estimator in NAMES:
        return f": an estimator goes by its name, as in pg.preset({estimator!r})"
    near = nearest(name, __all__)
    return f": did you mean {' or '.join(f'pg.{other}' for other in near)}?" if near else ""
