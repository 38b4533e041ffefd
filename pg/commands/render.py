"""Draw what the policy of a run does: an animated GIF and, beside it, a film strip as PNG and SVG.

Without a run, `--env NAME` draws an untrained policy. Your own environment is drawn by its method
draw(axes, state, params). An environment of Gymnasium, also a class of your own, draws its frames
itself, with its render mode rgb_array. Exit codes: 0 done, 1 an environment failed, 2 a mistake, 74
the disk is full.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from pg import numerals
from pg.commands import cli
from pg.config import Config, Hyperparams, check_env, part_name
from pg.reports import drawings
from pg.runs import folders, zoo
from pg.settings import own_files


@dataclasses.dataclass
class Options(cli.OwnPolicy):
    """The policy that is drawn, and the file."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")] = None
    """Folder of a run, or of a sweep: its best configuration; or the name of a policy of the zoo,
    such as CartPole-v1/ppo.
    """
    env: str | None = None
    """Environment in which an untrained policy is drawn, instead of a run; or FILE.py:CLASS of your
    own, also that of a run.
    """
    seed_index: int = 0
    """Index of one of the run's seeds, from 0."""
    seed: int = 0
    """Seed of the episodes that are drawn."""
    episodes: int = 1
    """Number of episodes, one after the other."""
    best: bool = False
    """Use the parameters with the best evaluation during training (--eval-every), instead of the
    last ones.
    """
    greedy: bool = False
    """Use the mode of the policy instead of sampled actions."""
    steps: int = 500
    """Largest number of steps of an episode that are drawn."""
    fps: int | None = None
    """Frames per second; none: the render_fps of an environment of Gymnasium, at most 50; for
    others 30.
    """
    out: Path | None = None
    """Path of the GIF; none: policy.gif in the run's folder, or NAME.gif here for others."""

    def __post_init__(self) -> None:
        """Finds the run of a sweep, or a policy of the zoo, which is drawn into this directory.

        Raises ValueError for a folder without a run, and for an unknown name.
        """
        if self.run is None:
            return
        self.run = self.run.expanduser()
        is_of_zoo = not self.run.exists()
        if is_of_zoo and self.out is None:
            self.out = Path(f"{self.run.as_posix().replace('/', '-')}.gif")
        self.run = folders.run_folder(zoo.resolved(self.run))


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    cli.cache_compilations()
    try:
        config, hyperparams, out = settings(options)
        shown = played(config, hyperparams, options)  # only now jax is loaded
        drawings.animate(shown, out, options.fps)
        drawings.strip(shown, out)
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    print(
        f"{numerals.counted(len(shown.last), 'frame')}, return "
        f"{', '.join(f'{total:.4g}' for total in shown.total[shown.last])}"
    )
    print(*(out.with_suffix(suffix) for suffix in (".gif", ".png", ".svg")), sep="\n")
    return 0


def settings(options: Options) -> tuple[Config, Hyperparams, Path]:
    """The settings of the policy, and the path of the GIF. Raises ValueError for a mistake, before
    anything is loaded.
    """
    for name, least, most in (
        ("episodes", 1, 100),
        ("steps", 1, 10_000),
        ("fps", 1, drawings.FASTEST),
        ("seed", 0, 2**32 - 1),
    ):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be between {least} and {most}, got {value}")
    is_own_env = own_files.is_reference(options.env)
    is_of_run = options.run is not None
    if is_of_run == (options.env is not None) and not (is_of_run and is_own_env):
        raise ValueError(
            "give the folder of a run, or --env NAME for an untrained policy, and not both"
        )
    if options.run is None and options.best:
        raise ValueError("best needs a run: give its folder")
    if options.run is None:
        if not is_own_env:
            check_env(str(options.env))
        config = Config(env=options.env, policy=options.policy, preset=None)
        hyperparams, seeds = Hyperparams(), 1
    else:
        config, hyperparams = options.setup(options.run, options.env)
        if options.best:
            folders.check_best(options.run)
        seeds = int(folders.read_options(options.run).get("seeds", 1))
    drawings.check(config.env)
    if not 0 <= options.seed_index < seeds:
        raise ValueError(f"seed_index must be from 0 to {seeds - 1}, got {options.seed_index}")
    out = options.out
    if out is None:
        # characters that are not valid in a file name on every system, as in gymnasium:ALE/Pong-v5
        name = re.sub(r"[^\w.-]", "-", part_name(config.env))
        out = options.run / "policy.gif" if options.run else Path(f"{name}.gif")
    if out.suffix != ".gif" or not out.parent.is_dir():
        raise ValueError(f"out must be a path that ends in .gif, in an existing folder, got {out}")
    return config, hyperparams, out


def played(config: Config, hyperparams: Hyperparams, options: Options) -> drawings.Film:
    """The episodes, with the parameters of the run or with freshly initialised ones."""
    import jax

    from pg import envs, make_learner, networks
    from pg.runs import acting, host_states, parameters

    drawings.check_first_frame(config.env)
    with host_states.closing([config]):
        key = jax.random.key(options.seed)
        if options.run is None:
            state = make_learner(config, hyperparams).init(key)
            found = state.params.policy, state.normaliser
        else:
            env = envs.configured(config, 1, hyperparams.env_params)
            shapes = acting.acting_shapes(config, env, networks.make_policy(config, env))
            stored = parameters.read_policy(options.run, *shapes, best=options.best)
            found = jax.tree.map(lambda x: x[options.seed_index], stored)
        asked = {name: getattr(options, name) for name in ("episodes", "steps", "greedy")}
        asked |= {"normaliser": found[1], "env_params": hyperparams.env_params}
        return drawings.film(config, found[0], key, **asked)
