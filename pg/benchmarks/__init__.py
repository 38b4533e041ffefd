"""Benchmarks: returns over seeds by task, and the leaderboard of gradient quality."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
