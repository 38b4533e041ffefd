"""A run: its training in chunks, folder, checkpoints and results, and loading its policy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
