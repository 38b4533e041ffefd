"""Sweeps: configurations × seeds in few programs, whatever their number."""

import lazy_loader

# Imports on first use, so that a command line is read without jax.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
