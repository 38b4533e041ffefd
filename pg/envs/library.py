"""The only module that imports gymnax, without the plotting libraries that gymnax imports."""

import importlib
import sys
import types
from typing import Any


class _LazyModule(types.ModuleType):
    """A stand-in for a plotting library that gymnax imports: it loads the library on first use."""

    def __getattr__(self, name: str) -> Any:
        # the import machinery looks these up, which must not load the library
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


# Environments of gymnax import these for their pictures; seaborn (with pandas and scipy) and pyplot
# cost seconds.
_PLOTTING = [name for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules]
sys.modules.update({name: _LazyModule(name) for name in _PLOTTING})
import gymnax  # noqa: E402

for _name in _PLOTTING:  # gymnax keeps its stand-in; everyone else gets the library
    if isinstance(sys.modules[_name], _LazyModule):
        del sys.modules[_name]

from gymnax.environments import environment, spaces  # noqa: E402
from gymnax.environments.bsuite.deep_sea import DeepSea  # noqa: E402

__all__ = ["DeepSea", "environment", "gymnax", "spaces"]
