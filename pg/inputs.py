"""Checks of single values from outside: each is converted, or a ValueError of one sentence names
it.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

COUNTABLE = 2**31  # counters are 32-bit integers
LARGEST = (2 - 2**-23) * 2.0**127  # and numbers 32-bit floats
EXAMPLE = "{'gravity': 9.8}"
SHORT = 60  # number of names that a message lists if they are listed elsewhere too
FEW = 20  # number that it lists if the value is not a name
WIDTH = 80  # characters of a value that messages show

# Other libraries' words for a setting, a flag or an estimator of this one.
ALIASES = {
    **dict.fromkeys(("a2c", "a3c"), "actor_critic"),
    **dict.fromkeys(("pg", "vpg", "vanilla_policy_gradient"), "reinforce"),
    **dict.fromkeys(("rloo",), "leave_one_out"),
    **dict.fromkeys(("impala",), "vtrace"),
    **dict.fromkeys(("hca", "state_hca"), "hindsight_credit"),
    **dict.fromkeys(("coco", "cocoa"), "counterfactual_contributions"),
    **dict.fromkeys(("algo", "algorithm", "agent", "method"), "estimator"),
    **dict.fromkeys(("env_id", "env_name", "environment", "game"), "env"),
    **dict.fromkeys(("env_kwargs", "env_args", "environment_params"), "env_params"),
    **dict.fromkeys(
        ("lr", "alpha", "step_size", "actor_lr", "policy_lr", "pi_lr"), "learning_rate"
    ),
    **dict.fromkeys(("critic_actions", "action_value_network"), "action_critic"),
    **dict.fromkeys(("critic_lr", "value_lr", "vf_lr"), "critic_rate"),
    **dict.fromkeys(("anneal_lr", "lr_schedule", "lr_decay", "learning_rate_schedule"), "schedule"),
    **dict.fromkeys(
        ("total_timesteps", "num_timesteps", "n_timesteps", "timesteps"), "total_steps"
    ),
    **dict.fromkeys(("max_timesteps", "total_env_steps", "num_env_steps", "frames"), "total_steps"),
    **dict.fromkeys(
        ("updates", "n_updates", "iterations", "num_iterations", "n_iter"), "num_updates"
    ),
    **dict.fromkeys(("n_envs", "envs", "num_environments", "num_workers", "n_workers"), "num_envs"),
    **dict.fromkeys(("num_episodes", "n_episodes", "episodes_per_update"), "num_envs"),
    **dict.fromkeys(
        ("n_steps", "steps", "rollout_length", "unroll_length", "rollout_steps"), "num_steps"
    ),
    **dict.fromkeys(("max_episode_steps", "max_steps", "episode_length", "time_limit"), "horizon"),
    **dict.fromkeys(
        ("n_epochs", "epochs", "update_epochs", "num_sgd_iter", "ppo_epochs"), "num_epochs"
    ),
    **dict.fromkeys(("n_minibatches", "nminibatches", "minibatches"), "num_minibatches"),
    **dict.fromkeys(("batch_size", "mini_batch_size", "sgd_minibatch_size"), "minibatch_size"),
    **dict.fromkeys(
        (
            "gradient_accumulation_steps",
            "grad_accumulation_steps",
            "accumulation_steps",
            "accumulate_grad_batches",
            "gradient_accumulation",
            "microbatches",
        ),
        "micro_batches",
    ),
    **dict.fromkeys(("frame_skip", "frameskip"), "action_repeat"),
    **dict.fromkeys(("num_generations", "n_generations"), "group_size"),
    **dict.fromkeys(("symmetric", "mirrored", "antithetic_pairs"), "antithetic"),
    **dict.fromkeys(("discount", "discount_factor"), "gamma"),
    **dict.fromkeys(("lambda", "lam", "lmbda", "trace_decay"), "gae_lambda"),
    **dict.fromkeys(
        ("clip", "clip_range", "clip_eps", "clip_epsilon", "clip_coef", "clip_ratio"), "epsilon"
    ),
    **dict.fromkeys(("clip_range_vf", "clip_vloss", "vf_clip", "value_clip"), "value_epsilon"),
    **dict.fromkeys(("target_kl",), "stop_kl"),
    **dict.fromkeys(
        ("ent_coef", "entropy", "entropy_weight", "entropy_coefficient"), "entropy_coef"
    ),
    **dict.fromkeys(
        ("vf_coef", "value_loss_coef", "critic_coef", "value_coefficient"), "value_coef"
    ),
    **dict.fromkeys(("grad_clip", "clip_grad_norm", "max_gradient_norm"), "max_grad_norm"),
    **dict.fromkeys(("norm_adv", "normalize_advantage", "normalize_advantages"), "advantages"),
    **dict.fromkeys(("normalize", "norm_obs", "normalize_obs"), "normalise_observations"),
    **dict.fromkeys(("norm_reward", "normalize_reward", "normalize_rewards"), "scale_rewards"),
    **dict.fromkeys(
        ("net_arch", "layers", "hidden_size", "hidden_dim", "hidden_layers"), "hidden_sizes"
    ),
    **dict.fromkeys(("activation_fn",), "activation"),
    **dict.fromkeys(("vf_arch", "critic_sizes", "critic_layers"), "critic_hidden_sizes"),
    **dict.fromkeys(("kernel_init", "weight_init", "init"), "initialiser"),
    **dict.fromkeys(("layernorm", "use_layer_norm"), "layer_norm"),
    **dict.fromkeys(("cnn_layers", "filters", "convolutions"), "conv"),
    **dict.fromkeys(("memory", "recurrent", "lstm", "gru"), "rnn"),
    **dict.fromkeys(("action_law",), "action_distribution"),
    **dict.fromkeys(("lstm_hidden_size", "memory_size"), "rnn_size"),
    **dict.fromkeys(("n_seeds", "num_seeds"), "seeds"),
    **dict.fromkeys(("random_seed",), "seed"),
    **dict.fromkeys(("n_eval_episodes", "num_eval_episodes"), "eval_episodes"),
    **dict.fromkeys(("deterministic",), "greedy"),
    **dict.fromkeys(
        ("output", "output_dir", "outdir", "log_dir", "logdir", "save_dir", "folder"), "out"
    ),
    **dict.fromkeys(("run_name", "exp_name", "experiment_name"), "name"),
    **dict.fromkeys(("restore", "load", "checkpoint"), "resume"),
}


class UnknownNameError(ValueError):
    """An unknown name."""

    def __init__(self, message: str, name: Any = None) -> None:
        super().__init__(message)
        self.name = name


def check_name(field: str, value: Any, valid: Iterable[str], listed: str = "") -> None:
    """Raises UnknownNameError, with the nearest valid names, unless `value` is one of `valid`.

    Args:
        field: the kind of name.
        value: the name.
        valid: all valid names.
        listed: where they are listed, if they may be too many for a sentence, such as "--help lists
            them".
    """
    names = list(valid)
    if isinstance(value, str) and value in names:
        return
    is_empty = isinstance(value, str) and not value
    near = [] if is_empty else nearest(value, names)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    if not names:
        valid_names = "there is none"
    elif (
        not isinstance(value, str) and len(names) > FEW
    ):  # a value that is not a name is not similar to any
        valid_names = f"write a name, as {names[0]!r}"
    elif listed and len(names) > SHORT:  # a registry would fill the screen
        valid_names = f"{len(names)} names are known, as {names[0]}; {listed}"
    else:
        valid_names = f"valid: {', '.join(names)}"
    raise UnknownNameError(f"unknown {field} {shown(value)}: {hint}{valid_names}", value)


def nearest(value: Any, names: Iterable[str]) -> list[str]:
    """The names, at most three, that are most similar to `value`; the one that is meant, if it is
    spelt differently or another library's word for it.
    """
    names = list(names)
    text = str(value)[:80]  # the search for similar names takes time
    written = _plain(text)
    for meant in (written, ALIASES.get(written)):
        same = [name for name in names if _plain(name) == meant]
        if same:
            return same[:1]
    near = difflib.get_close_matches(text, names, n=3)
    if not near:  # a prefix or another case is what people type
        near = [name for name in names if text.lower()[:4] in name.lower()][:3]
    return near


def check_kind(name: str, value: Any, kind: type, instead: str) -> None:
    """Raises ValueError, with a hint, unless `value` is of this class."""
    if not isinstance(value, kind):
        import pg

        home = "pg" if kind.__name__ in pg.__all__ else kind.__module__
        raise ValueError(
            f"{name} must be a {home}.{kind.__name__}, got {described(value)}: {instead}"
        )


def check_function(name: str, value: Any, arguments: tuple[str, ...], instead: str) -> None:
    """Raises ValueError, with a hint, unless `value` takes these arguments, by position."""
    expected = f"{name} must be a function of {', '.join(arguments)}"
    if not callable(value):
        raise ValueError(f"{expected}, got {described(value)}: {instead}")
    try:
        signature = inspect.signature(value)
    except ValueError:  # written in C, without a signature
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{expected}, got one that cannot be called so: {error}") from None


def check_key(key: Any) -> None:
    """Raises ValueError unless `key` is one random key of jax, of the new kind or the old."""
    dtype, shape = str(getattr(key, "dtype", "")), getattr(key, "shape", ())
    typed = dtype.startswith("key<")
    raw = dtype == "uint32" and bool(
        shape
    )  # of the old kind: only its shape distinguishes it from seeds
    if (typed and shape == ()) or (raw and shape == _raw_key_shape()):
        return
    if typed or (raw and shape[1:] == _raw_key_shape()):
        raise ValueError(
            f"key must be one random key, got an array of them, of shape {shape}: use jax.vmap"
        )
    instead = "write jax.random.key(0), where 0 is the seed"
    if raw:
        expected = f"a random key, of shape {_raw_key_shape()} if it is an array of uint32"
        raise ValueError(f"key must be {expected}; got shape {shape}: {instead}")
    raise ValueError(f"key must be a random key, got {described(key)}: {instead}")


def _raw_key_shape() -> tuple[int, ...]:
    """The shape of the numbers of one key of jax's present kind."""
    import jax

    flags: Any = jax.config
    return _raw_key_shape_of(flags.jax_default_prng_impl)


@functools.cache
def _raw_key_shape_of(implementation: str) -> tuple[int, ...]:
    """The shape of the numbers of one key; found by a trace of jax, which takes time."""
    import jax

    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=implementation))).shape


def numbers(name: str, value: Any, instead: str = "") -> Any:
    """A jax array of real numbers or booleans, possibly traced; also from a number or a list.

    Raises ValueError, with a hint, for anything else, such as a key, a string or None.
    """
    import jax
    import jax.numpy as jnp

    # A pair of parts is not an array, and jax takes strings for names of dtypes.
    holds_texts = any(isinstance(x, str | bytes) for x in jax.tree.leaves(value))
    is_array = not hasattr(value, "_fields") and not holds_texts
    try:
        array = jnp.asarray(value) if is_array else None
    except (TypeError, ValueError):  # None, dictionaries, lists of unequal lengths
        array = None
    kinds = jnp.floating, jnp.integer, jnp.bool_
    if array is None or not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        got = value.dtype if hasattr(value, "dtype") else described(value)
        remedy = f": {instead}" if instead else ""
        raise ValueError(f"{name} must be an array of numbers, got {got}{remedy}")
    return array


def floats(name: str, value: Any) -> Any:
    """`numbers` as floating point: as an integer a discount below 1 would be truncated to 0."""
    import jax.numpy as jnp

    array = numbers(name, value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def converted(convert: Callable[..., dict[str, Any]], *names: str) -> Callable[[F], F]:
    """A decorator that checks the named arguments and converts them into arrays.

    So the function's body, like its annotations, is about arrays, whatever numbers it is called
    with.

    Args:
        convert: from the named arguments to those with which the function is called.
        names: the arguments that `convert` takes.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def with_arrays(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            arrays = convert(**{name: arguments[name] for name in names})
            return function(**{**arguments, **arrays})

        return cast(F, with_arrays)

    return decorate


def count(name: str, value: Any, low: int = 1) -> int:
    """A whole number of at least `low` that fits into 32-bit counters, as a Python integer."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {shown(value)}")
    if int(value) >= COUNTABLE:
        raise ValueError(f"{name} must be below 2^31 to fit into 32-bit counters; got {value!r}")
    return int(value)  # numpy's would overflow in a product


def check_seeds(name: str, first: int, num: int) -> None:
    """Raises ValueError unless `num` seeds from `first` on are below 2^32. name: of the first."""
    if not 0 <= first <= 2**32 - num:
        raise ValueError(f"{name} must be in [0, 2^32), with the seeds after it, got {first}")


def counts(name: str, value: Any, low: int = 1) -> tuple[int, ...]:
    """Several whole numbers, each as in `count`."""
    if (several := entries(value)) is None:
        raise ValueError(f"{name} must be whole numbers, as in (64, 64); got {shown(value)}")
    return tuple(count(name, entry, low) for entry in several)


def entries_or_names(name: str, value: Any) -> tuple[int | str, ...]:
    """Entries of a vector, as whole numbers, or names of the parts of a structure; a single string
    is a name. Raises ValueError for anything else, and for a mixture.
    """
    several = (value,) if isinstance(value, str) else entries(value)
    are_names = [isinstance(part, str) and bool(part) for part in several or ()]
    if several and all(are_names):
        return several
    if any(are_names):
        raise ValueError(
            f"{name} must be either entries of a vector, as (0, 2), or names; got {shown(value)}"
        )
    return counts(name, value, low=0)


def assignments(env_params: Any) -> tuple[tuple[str, bool | int | float], ...]:
    """Overrides of parameters as pairs of name and number, or True or False."""
    pairs = entries(env_params.items() if isinstance(env_params, Mapping) else env_params)
    if pairs is None or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs
    ):
        raise ValueError(
            f"env_params must be names with numbers, as in {EXAMPLE}; got {shown(env_params)}"
        )
    return tuple((str(name), _finite(str(name), value)) for name, value in pairs)


def entries(value: Any) -> tuple[Any, ...] | None:
    """A list, tuple or array as a tuple; None of anything else."""
    if isinstance(value, str | bytes | Mapping):
        return None
    try:
        return tuple(value)
    except TypeError:  # an array without axes claims to be iterable
        return None


class Optional(NamedTuple):
    """The shape of an optional entry."""

    shape: Any


def misfit(data: Any, shape: Any, name: str = "it") -> str:
    """A clause on the first place where JSON data do not have the expected shape; "" if they do.

    Args:
        data: the data.
        shape: a type (`float`: any number; `int`: no boolean), a literal value, or a structure of
            these: a list of one shape, of any length; a tuple of alternatives; a dict of names,
            which are required unless `Optional`, with further names allowed; a dict of only `...`:
            any names.
        name: the name of `data` in the clause.
    """
    if isinstance(shape, Optional):
        return misfit(data, shape.shape, name)
    if isinstance(shape, dict):
        return _misfit_of_names(data, shape, name)
    if isinstance(shape, list):
        if not isinstance(data, list):
            return f"{name} must be a list, got {shown(data)}"
        found = (misfit(x, shape[0], f"{name}[{i}]") for i, x in enumerate(data))
        return next(filter(None, found), "")
    if isinstance(shape, tuple):
        fits = any(not misfit(data, one) for one in shape)
    elif shape is float:
        fits = isinstance(data, int | float) and not isinstance(data, bool)
    elif isinstance(shape, type):
        fits = isinstance(data, shape) and (shape is bool or not isinstance(data, bool))
    else:
        fits = type(data) is type(shape) and data == shape
    return "" if fits else f"{name} must be {_in_words(shape)}, got {shown(data)}"


_DESCRIPTIONS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "names with values",
    None: "null",
}


def _in_words(shape: Any) -> str:
    """A shape that is neither a list nor a dict, in words."""
    if isinstance(shape, tuple):
        return " or ".join(map(_in_words, shape))
    return _DESCRIPTIONS[shape] if shape in _DESCRIPTIONS else repr(shape)


def _misfit_of_names(data: Any, shape: Mapping[Any, Any], name: str) -> str:
    """`misfit` of names with values."""
    if not isinstance(data, dict):
        return f"{name} must be names with values, got {shown(data)}"
    expected = dict.fromkeys(data, shape[...]) if ... in shape else shape
    for entry, inner in expected.items():
        where = shown(entry) if name == "it" else f"{name}, {shown(entry)}"
        if entry not in data:
            if not isinstance(inner, Optional):
                return f"{where} is missing"
        elif found := misfit(data[entry], inner, where):
            return found
    return ""


def shown(value: Any) -> str:
    """A value as one short line."""
    return " ".join(repr(value).split())[:WIDTH]


def described(value: Any) -> str:
    """A value in an error: itself if it is short, else its kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if type(value) is tuple and value:
        return f"a tuple of {', '.join(map(_kind, value))}"
    if value is None or isinstance(value, str | bytes | Real):
        return shown(value)
    if isinstance(value, Mapping | list) and len(repr(value)) <= WIDTH:
        return shown(value)
    name = _kind(value)
    return f"{'an' if name[0] in 'AEIOUa' else 'a'} {name}"


def _kind(value: Any) -> str:
    """The class of a value; a description of jax's arrays, traced or not, and of its keys."""
    if isinstance(value, ModuleType) or not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return type(value).__name__
    return "random key" if str(value.dtype).startswith("key<") else "array"


def _plain(name: str) -> str:
    """A name without the differences between a flag and a field, or two spellings."""
    return name.lower().replace("-", "_").strip("_")


def _finite(name: str, value: Any) -> bool | int | float:
    if str(getattr(value, "dtype", "")) == "bool":  # numpy's
        value = bool(value)
    if isinstance(value, bool) and name != "max_steps_in_episode":
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        raise ValueError(
            f"env_params: {name} must be {value.title()}, without quotation marks; got {value!r}"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"env_params: {name} must be a finite number, got {shown(value)}")
    number: Any = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"env_params: {name} must be a finite number, got {value!r}")
    if abs(number) > (COUNTABLE - 1 if isinstance(number, int) else LARGEST):
        raise ValueError(f"env_params: {name} must fit into 32 bits, got {value!r}")
    if name == "max_steps_in_episode" and (number < 1 or number % 1):
        raise ValueError(f"env_params: {name} must be a whole number of at least 1, got {value!r}")
    return number
