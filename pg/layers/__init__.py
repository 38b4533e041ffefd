"""Layers of the networks, as flax modules: torsos, recurrent cells and heads."""

from pg.layers.action_functions import ActionFunction
from pg.layers.causal import CausalTransformer, TokenKinds
from pg.layers.dense import ACTIVATIONS, orthogonal
from pg.layers.heads import (
    LOG_STD,
    ActionValues,
    Joint,
    Logits,
    LogOdds,
    Normal,
    QuadraticValues,
    SinusoidalValues,
    Value,
    units_of_box,
)
from pg.layers.model import Model, make_cell
from pg.layers.quadratic import Quadratic
from pg.layers.recurrent import Recurrent
from pg.layers.sinusoids import Sinusoids
from pg.layers.torsos import CNN, MLP, Hidden, Together, patches

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "LOG_STD",
    "MLP",
    "ActionFunction",
    "ActionValues",
    "CausalTransformer",
    "Hidden",
    "Joint",
    "LogOdds",
    "Logits",
    "Model",
    "Normal",
    "Quadratic",
    "QuadraticValues",
    "Recurrent",
    "SinusoidalValues",
    "Sinusoids",
    "Together",
    "TokenKinds",
    "Value",
    "make_cell",
    "orthogonal",
    "patches",
    "units_of_box",
]
