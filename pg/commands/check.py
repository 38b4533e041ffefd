"""Check an estimator, from the table or your own file, against exact figures on three small
problems: its bias and variance next to those of others, its mean in samples of the rollout, and the
rules that every estimator must follow.

`@pg.with_facts(unbiased_for="J")` above the function states what is claimed. Exit codes: 0
everything holds, 1 a claim or a rule fails, 2 a mistake in the arguments.
"""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from pg.commands import cli, terminal
from pg.estimators.names import check_exact, check_on_tables, facts_of, is_known
from pg.inputs import count
from pg.reports import tables
from pg.settings.parts import check_choice

FAILS = 1  # the exit code
BESIDE = ("reinforce", "reward_to_go", "leave_one_out")
# Estimators of the same kind, by a fact and its value.
BESIDE_TOO: dict[tuple[str, Any], tuple[str, ...]] = {
    ("critic", "V"): ("state_value", "gae"),
    ("critic", "Q"): ("all_action", "action_dependent_baseline"),
    ("critic", "hindsight"): ("hindsight_credit", "counterfactual_contributions"),
    ("baseline", "group"): ("group_leave_one_out",),
    ("off_policy", True): ("per_decision_importance",),
    ("collect", ("windows",)): ("gpomdp",),
}

BASELINES = {
    "constant": "a constant",
    "past": "past batches",
    "batch": "the batch",
    "group": "the group",
    "greedy": "the greedy policy",
    "critic": "the critic",
    "branches": "episodes from the same state",
}


@dataclasses.dataclass
class Options:
    """The estimator, and what it is compared with."""

    estimator: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE.py:NAME")]
    """Name of an estimator, or a file and the name of a function of policy, critic and
    hyperparameters in it.
    """
    beside: tuple[str, ...] = ()
    """Names of the estimators to compare it with; none: reinforce, reward_to_go, leave_one_out, and
    those of its kind.
    """
    gamma: float = 0.9
    """Discount γ."""
    episodes: int = 100_000
    """Number of episodes that are sampled."""
    seed: int = 0
    """Seed of the sample."""
    json: bool = False
    """Print one object of JSON instead, and nothing else."""

    def __post_init__(self) -> None:
        """Raises ValueError for a mistake, before jax is loaded."""
        check_choice("estimator", self.estimator, check_exact)
        for name in self.beside:
            check_exact("beside", name)
        for name in filter(is_known, (self.estimator, *self.beside)):
            check_on_tables(name, facts_of(name))
        if not 0.0 < self.gamma <= 1.0:
            raise ValueError(f"gamma must be above 0 and at most 1, got {self.gamma}")
        count("episodes", self.episodes)


@cli.command
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Returns the exit code."""
    options = cli.options(Options, cli.docstring_of(__file__), argv, prog)
    cli.cache_compilations()
    from pg import diagnostics
    from pg.estimators import family

    try:
        factory = family.find(options.estimator)  # executes the custom file
    except ValueError as error:
        cli.fail(error)
    began = time.monotonic()
    with terminal.in_parts(f"checking {options.estimator}", quiet=options.json) as begin:
        found = diagnostics.verdict(
            factory,
            gamma=options.gamma,
            num_episodes=options.episodes,
            seed=options.seed,
            on_part=begin,
        )
    if options.json:
        print(json.dumps(_as_json(found)))
        return 0 if found.ok else FAILS
    cli.say(f"{found.estimator} {_claims(found.claims)}")
    for finding in found.findings:
        cli.say(f"  {'ok   ' if finding.ok else 'FAILS'}  {finding.name:<15} {finding.text}")
    if found.figures:
        _compare(found, options.beside or _beside(found), options.gamma)
    failures = [finding.name for finding in found.findings if not finding.ok]
    if failures:
        outcome = f"{', '.join(failures)}: fails"
    else:
        outcome = "nothing fails" if found.claims else "nothing is claimed, and no rule is broken"
    print(f"\n{outcome}, after {time.monotonic() - began:.0f} s")
    return FAILS if failures else 0


def _beside(found: Any) -> tuple[str, ...]:
    """The names of the estimators that one of these facts is compared with."""
    of_facts = [
        names for (fact, value), names in BESIDE_TOO.items() if getattr(found.facts, fact) == value
    ]
    names = [*BESIDE, *(name for kin in of_facts for name in kin)]
    return tuple(name for name in names if name != found.estimator)


def _claims(claims: dict[str, Any]) -> str:
    """The claims in words."""
    if not claims:
        return "claims nothing: pg.with_facts states what is to be checked"
    target = claims["unbiased_for"]
    words = [
        "no unbiasedness" if target == "no" else f"to be unbiased for {target}",
        f"from {' or '.join(claims['collect'])}{' of another policy' * claims['off_policy']}",
    ]
    if claims["baseline"] != "none":
        words.append(f"with a baseline from {BASELINES[claims['baseline']]}")
    return f"claims {', '.join(words)}"


def _compare(found: Any, names: Sequence[str], gamma: float) -> None:
    """Prints the exact figures next to those of other estimators."""
    import jax

    from pg.diagnostics import references
    from pg.estimators import family

    rows = [_row(found.estimator, found.figures)]
    with terminal.in_parts("exact figures of others") as begin, jax.enable_x64(True):
        for number, name in enumerate(names, start=1):
            begin(f"{name}, {number} of {len(names)}")
            facts = facts_of(name)
            h = references.hyperparams(facts, gamma)
            figures = references.all_figures(family.find(name), facts, h)
            rows.append(_row(name, figures))
    problems = " · ".join(found.figures)
    print(f"\nexact, on {problems}, with exact critics; variance of reinforce = 1")
    print(tables.plain([["", "bias", "variance", "signal to noise"], *rows]))


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    """A row of the table: each cell holds the numbers of all problems."""
    columns = zip(*(problem.as_text() for problem in figures.values()), strict=True)
    return [name, *(" · ".join(column) for column in columns)]


def _as_json(found: Any) -> dict[str, Any]:
    """The verdict as JSON has it: numbers that are not finite are null."""
    findings = [finding._asdict() for finding in found.findings]
    figures = {problem: figures._asdict() for problem, figures in found.figures.items()}
    return _finite(
        {
            "estimator": found.estimator,
            "ok": found.ok,
            "claims": found.claims,
            "findings": findings,
            "figures": figures,
        }
    )


def _finite(value: Any) -> Any:
    """A tree with None instead of numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
