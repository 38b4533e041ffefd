"""Checks of the settings: choices, ranges and combinations; free of jax and gymnax."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
