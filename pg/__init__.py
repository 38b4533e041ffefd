"""pg: a laboratory for policy gradients in JAX. The public names, loaded when first used."""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "acting",
    "adapters",
    "baselines",
    "benchmark",
    "blocks",
    "checkpoints",
    "cli",
    "closed_forms",
    "config",
    "devices",
    "diagnostics",
    "distributions",
    "drawings",
    "encoding",
    "envs",
    "estimators",
    "evaluate",
    "evolution",
    "files",
    "folders",
    "interrupts",
    "job",
    "laboratory",
    "memory",
    "networks",
    "nonfinite",
    "normalisation",
    "optimizers",
    "pathwise",
    "plots",
    "presets",
    "results",
    "returns",
    "rollout",
    "runs",
    "statistics",
    "suites",
    "surrogates",
    "sweep",
    "tabular",
    "terminal",
    "train",
    "tuned",
)
_NAMES = {
    "Config": "config",
    "Hyperparams": "config",
    "preset": "presets",
    "Env": "envs",
    "Transition": "envs",
    "make_env": "envs",
    "Categorical": "distributions",
    "Gaussian": "distributions",
    "CensoredGaussian": "distributions",
    "TanhGaussian": "distributions",
    "Network": "networks",
    "make_policy": "networks",
    "make_critic": "networks",
    "Trajectory": "rollout",
    "episodes": "rollout",
    "windows": "rollout",
    "ESTIMATORS": "estimators",
    "Estimator": "estimators",
    "Params": "estimators",
    "Weighted": "estimators",
    "build_estimator": "estimators",
    "pathwise_gradient": "pathwise",
    "evolution_gradient": "evolution",
    "make_optimizer": "optimizers",
    "Learner": "train",
    "TrainState": "train",
    "make_learner": "train",
    "make_train": "train",
    "Evaluation": "evaluate",
    "load_policy": "acting",
    "run": "runs",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import pg` and `--help` need not wait for jax and gymnax."""
    if name in _NAMES:
        return getattr(importlib.import_module(f"pg.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"pg.{name}")
    raise AttributeError(f"module 'pg' has no attribute {name!r}{_meant(name)}", name=name)


def _meant(name: str) -> str:
    """The name here that a name of another library stands for, as the end of a sentence."""
    if name.startswith("_"):  # asked for by tools
        return ""
    from pg.config import ACCEPTS
    from pg.inputs import ALIASES, nearest

    estimator = ALIASES.get(name.lower(), name.lower())
    if estimator in ACCEPTS:
        return f": an estimator goes by its name, as in pg.preset({estimator!r})"
    near = nearest(name, [*_NAMES, *_MODULES])
    return f": did you mean {' or '.join(f'pg.{other}' for other in near)}?" if near else ""


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES, *_MODULES])
