"""Trackers: a run followed in TensorBoard, Weights & Biases, MLflow, Aim, or a custom tracker."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
