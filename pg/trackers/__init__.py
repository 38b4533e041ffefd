"""Trackers: a run followed in TensorBoard, Weights & Biases, MLflow, Aim, or a custom tracker."""
