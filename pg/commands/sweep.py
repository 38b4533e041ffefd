"""Train every configuration of a search with every seed; rank and plot them, and try the best
again on fresh seeds.

Settings are named by --over: NAME=V,V,V lists values, NAME=LOW:HIGH is a range, log-uniform unless
:linear follows. Fields of Hyperparams and parameters of the environment share one program; each
value of a field of Config needs a new compilation. After Ctrl-C or a kill the same command
continues, from the last checkpoint of the chunk that was in progress; if a file of your own parts
has changed since, with --allow-changed-code.

If the estimator or the environment is varied, each configuration has the settings that the train
command uses for them, except those that are given.

Two methods need less than training all configurations. halving trains all for a first part of
their updates and only the best for longer, each from where it was and on the schedules of the whole
run. tpe (Optuna) proposes configurations in batches, each from the scores of those before.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pg.commands import cli
from pg.inputs import check_seeds
from pg.runs import interrupts, memory
from pg.sweep import proposals, spaces

if TYPE_CHECKING:
    from pg.sweep import SweepSpec
    from pg.sweep.search import Search


@dataclasses.dataclass
class Options(cli.BorrowedSettings, cli.Checkpointing, cli.Length):
    """Settings of the search, its seeds and its folder."""

    over: tuple[str, ...] = ("learning_rate=0.001,0.003,0.01",)
    """Settings to vary, each NAME=V,V,V or NAME=LOW:HIGH[:linear]."""
    method: Literal["auto", "grid", "random", "sobol", "halving", "tpe"] = "auto"
    """Choice of the configurations; auto: a grid of values, and a Sobol' sequence if there are
    ranges.
    halving: those of auto, but only the best are trained to the end. tpe: those that
    Optuna proposes.
    """
    trials: int = 16
    """Number of configurations that are drawn or proposed; powers of two cover ranges most evenly.
    """
    eta: int = 3
    """One configuration in this many goes on to the next rung, and trains this many times longer
    (halving).
    """
    rungs: int | None = None
    """Number of rungs; none: until one configuration is left (halving)."""
    trials_at_once: int = 8
    """Number of configurations of a batch, all proposed from the scores before it (tpe)."""
    search_seed: int = 0
    """Seed of the configurations that are drawn from ranges."""
    seed: int = 0
    """The first seed of every configuration."""
    seeds: int = 8
    """Number of seeds of every configuration."""
    fresh_seeds: int | None = None
    """Number of further seeds on which the best configuration is tried again; none: as many as
    `seeds`; 0: none.
    """
    eval_episodes: int = 100
    """Number of episodes of the final evaluation, per run."""
    greedy: bool = False
    """Evaluate the mode of the policy instead of sampled actions."""
    out: Path = Path("results/sweeps")
    """Folder that holds the sweep's folder, which is made if it does not exist."""
    width: int | None = None
    """Largest number of vmapped runs on one device; none: 16 on CPU, elsewhere 1024."""
    memory_limit: str | None = None
    """Largest memory of this process, such as 4GiB; none: the free memory."""
    allow_changed_code: bool = False
    """Continue a sweep even if files of your own parts have changed since, instead of starting
    another one; this is recorded.
    """
    exact: bool = False
    """Train the runs one after the other within the program, each bitwise identical to a
    single-seed run.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for a number out of range."""
        super().__post_init__()
        least = {
            "seeds": 2,
            "eval_episodes": 1,
            "trials": 1,
            "eta": 2,
            "rungs": 1,
            "trials_at_once": 1,
            "search_seed": 0,
            "width": 1,
            "fresh_seeds": 0,
        }
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                why = ": intervals are over seeds; pg train takes one" if name == "seeds" else ""
                raise ValueError(
                    f"{name} must be a whole number of at least {low}, got {value}{why}"
                )
        fresh = self.seeds if self.fresh_seeds is None else self.fresh_seeds
        check_seeds("seed", self.seed, self.seeds + fresh)


def _search(options: Options, spec: "SweepSpec") -> "Search":
    """The search of a sweep's configurations by halving, or by Optuna."""
    from pg.sweep.search import Halving, Search, Tpe

    if options.method == "halving":
        return Search(spec, Halving(options.eta, options.rungs))
    named = spaces.spaces_of(options.over)
    batch, seed = options.trials_at_once, options.search_seed
    return Search(spec, Tpe(named, options.trials, batch, seed, options.total_steps))


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code, as the train command does; 3 where every run diverged."""
    config, hyperparams, options, machine, given = cli.parse_given(
        prog, cli.docstring_of(__file__), Options, argv
    )
    cli.cache_compilations()
    try:
        is_tpe, is_halving = options.method == "tpe", options.method == "halving"
        table: spaces.Table = {}
        if is_tpe:
            spaces.spaces_of(options.over)  # which checks them
            proposals.check_installed()
        else:
            method = "auto" if is_halving else options.method
            table = spaces.table_of(options.over, method, options.trials, options.search_seed)
        if options.total_steps is not None:
            given = given and given | {"num_updates"}  # which follows from it
            presets = spaces.presets(table, config, given, options.settings_of)
            table = spaces.lasting(table, config, options.total_steps, presets)
        limit = (
            None if options.memory_limit is None else memory.number_of_bytes(options.memory_limit)
        )
        with interrupts.held("loading"), cli.waiting("loading"):
            machine.start()  # only now: a mistake in the arguments need not wait for jax
            from pg.sweep import SweepSpec, driver
            from pg.sweep.search import Budget, run_search

        seeds = range(options.seed, options.seed + options.seeds)
        spec = SweepSpec(
            config,
            hyperparams,
            table,
            seeds,
            options.eval_episodes,
            options.greedy,
            options.exact,
            given,
            options.settings_of,
        )
        fresh = options.seeds if options.fresh_seeds is None else options.fresh_seeds
        if is_tpe or is_halving:
            search = _search(options, spec)
            at_once = min(options.trials, options.trials_at_once) * options.seeds
            num_runs = at_once if is_tpe else spec.num_runs
            layout, _ = machine.layout(num_runs, spec.config.envs_at_once)
            budget = Budget(layout, options, options.width, limit, options.allow_changed_code)
            folder = search.folder(options.out, allow_changed_code=options.allow_changed_code)
            driver.say_of_other_code(search.unfinished_of_other_code, options.out, folder)
            return run_search(search, folder, budget, fresh=fresh)
        folder = spec.folder(options.out, allow_changed_code=options.allow_changed_code)
        driver.say_of_other_code(spec.unfinished_of_other_code, options.out, folder)
        layout, _ = machine.layout(spec.num_runs, spec.config.envs_at_once)
        return driver.run_sweep(
            spec,
            folder,
            layout,
            options,
            width=options.width,
            limit=limit,
            fresh=fresh,
            allow_changed_code=options.allow_changed_code,
        )
    except ValueError as error:
        cli.fail(cli.naming_command(error, "the same command starts again"))
    except ConnectionError as error:
        cli.abandon(error)
    except KeyboardInterrupt as error:
        print("interrupted: finished work is kept; the same command continues from there")
        return cli.interrupted(interrupts.signal_of(error))
    except OSError as error:
        cli.fail_to_write(error)
