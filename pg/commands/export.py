"""Write the policy of a run as programs that act without this package.

They are programs of jax.export for CPUs, GPUs and TPUs, one for the mode and one for sampled
actions, in RUN/export beside policy.json, which lists their arguments. Exit codes: 0 done, 2 a
mistake, 74 the disk is full.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from pg.commands import cli
from pg.runs import folders, zoo


@dataclasses.dataclass
class Options(cli.OwnPolicy):
    """The policy that is exported, and the folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or of a sweep: its best configuration; or the name of a policy of the zoo,
    such as CartPole-v1/ppo.
    """
    seed: int | None = None
    """One of the run's seeds; none: its first."""
    env: str | None = None
    """FILE.py:CLASS of the run's environment, if it was your own."""
    best: bool = False
    """Use the parameters with the best evaluation during training (--eval-every), instead of the
    last ones.
    """
    onnx: bool = False
    """Also write the mode as an ONNX program; needs jax2onnx and onnxruntime."""
    out: Path | None = None
    """Folder of the programs; none: export/ in the run's folder, or NAME-export in this one for a
    policy of the zoo.
    """


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    cli.cache_compilations()
    try:
        folder = _exported(options)
    except ValueError as error:
        cli.fail(error)
    except OSError as error:
        cli.fail_to_write(error)
    print(*sorted(folder.iterdir()), sep="\n")
    return 0


def _exported(options: Options) -> Path:
    """Writes the programs. Returns their folder."""
    run = folders.run_folder(zoo.resolved(options.run.expanduser())).resolve()
    options.setup(run, options.env)  # a missing part is reported before jax is loaded

    from pg.runs import exporting
    from pg.runs.acting import load_policy

    with cli.waiting("exporting"):
        policy = load_policy(
            run,
            seed=options.seed,
            env=options.env,
            policy=options.policy,
            best=options.best,
            allow_changed_code=options.allow_changed_code,
        )
        out = options.out
        if out is None and run.is_relative_to(zoo.FOLDER):
            out = Path("-".join([*run.relative_to(zoo.FOLDER).parts, "export"]))
        elif out is None:
            out = run / "export"
        return exporting.export_policy(policy, out, onnx=options.onnx)
