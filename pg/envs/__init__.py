"""Environments: gymnax and the adapters of other libraries, as functions of their state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
