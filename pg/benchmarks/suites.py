"""The benchmark as a literal table: the rows of each environment, and the bar of each row.

A row is an environment and a label; the settings of both are looked up elsewhere. A label is an
estimator's name, or that of a variant with other settings (`estimators.variants`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pg import numerals
from pg.estimators.facts import FACTS

# Names of the leaderboard's problems, on which gradients are measured (a test holds this equal to
# pg.benchmarks.leaderboard.PROBLEMS, which needs jax).
GRADIENT_PROBLEMS = (
    "gridworld",
    "garnet",
    "Catch-bsuite",
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "Breakout-MinAtar",
)

Actions = Literal["greedy", "sampled"]


class Bar(NamedTuple):
    """A bar for the scores of a row: it is reached by their mean, or by a given share of them."""

    score: float
    share: float | None = None  # of the seeds
    actions: Actions = "greedy"  # of the final evaluation that is judged

    def is_reached(self, scores: Sequence[float]) -> bool:
        """True where the scores of the seeds of a row reach the bar."""
        if self.share is None:
            return sum(scores) / len(scores) >= self.score
        above = sum(score >= self.score for score in scores)
        return above >= self.share * len(scores) - 1e-9

    def __str__(self) -> str:
        """The bar in the results table, without the actions."""
        seeds = "mean" if self.share is None else f"{self.share * 20:.0f}/20"
        return f"{seeds} ≥ {numerals.number(self.score, 6)}"


class Row(NamedTuple):
    """One line of the results table."""

    label: str
    steps: int  # budget: the most environment steps a seed may take
    bar: Bar | None = None  # None: reported without a verdict
    # label, or custom estimator, whose settings it has; None: `label`
    settings_of: Any = None
    parts: Mapping[str, Any] = {}  # custom ones, by field of Config; read only


class Task(NamedTuple):
    """An environment of the benchmark."""

    name: str  # of the folder and in the tables
    rows: tuple[Row, ...]
    floor: float  # mean return of a random policy
    best: float | None  # the best published, or the optimum if known; None: neither
    source: str  # of `best`
    env: Any = None  # `Config.env`: a name, or a custom object; None: `name`
    changes: Mapping[str, Any] = {}  # fields of Config that make the variant of `env`; read only
    episodes: int = 100  # of the final evaluation, per seed
    seeds: int = 20

    @property
    def is_shorter(self) -> bool:
        """True for an environment of the table within a smaller budget of steps."""
        return isinstance(self.env, str) and self.env in TASKS and not self.changes

    @property
    def normalisable(self) -> bool:
        """True if floor and best span a scale on which scores of different environments can be
        compared.
        """
        return self.best is not None and self.best > self.floor


def _rows(steps: int, *labels: str, bar: Bar | None = None) -> tuple[Row, ...]:
    return tuple(Row(label, steps, bar) for label in labels)


# Estimators whose baseline is learned or estimated from the batch; a constant is set by hand. Steps
# towards a target policy are not tuned for any environment.
_BASELINES = tuple(
    name
    for name, facts in FACTS.items()
    if facts.takes("discrete")
    and facts.baseline not in ("none", "constant", "branches")
    and facts.module != "target_policies"
)
_ES = "evolution strategies with memory, gymnax-blines"
_BLINES = "PPO, gymnax-blines"
_PGX = "PPO, pgx (20M, read off a figure)"
_CARTPOLE, _CATCH, _ACROBOT = Bar(475, 19 / 20), Bar(0.98, 19 / 20), Bar(-90, 19 / 20)

# Floors were measured with gymnax 1.0.1. zoo: benchmark.md of rl-baselines3-zoo; gymnax-blines: its
# agents' logs, of one seed each, with sampled actions and gymnax 0.0, where a time limit counted as
# termination; SLM-Lab 2026: its docs/BENCHMARKS.md of February 2026, of four sessions.
CLASSIC = (
    Task(
        "CartPole-v1",
        (
            *_rows(
                500_000,
                "leave_one_out",
                "state_value",
                "actor_critic",
                "natural",
                "trpo",
                bar=_CARTPOLE,
            ),
            Row("ppo", 150_000, _CARTPOLE),
            Row("reinforce", 1_000_000, Bar(475, 14 / 20)),
        ),
        floor=22.1,
        best=500.0,
        source="A2C (500k steps), PPO and TRPO (100k), zoo; the maximum",
    ),
    Task(
        "CartPole-v1-positions",
        (Row("recurrent_ppo", 500_000, Bar(475)), Row("ppo", 500_000)),
        floor=22.1,
        best=500.0,
        source="PPO-LSTM (100k), zoo; the maximum",
        env="CartPole-v1",
        changes={"observe": (0, 2)},  # without the two velocities
    ),
    Task(
        "Acrobot-v1",
        (
            Row("ppo", 500_000, Bar(-80)),
            *_rows(500_000, "actor_critic", "leave_one_out", bar=_ACROBOT),
        ),
        floor=-500.0,
        best=-73.5,
        source="PPO (1M), zoo",
    ),
    Task(
        "MountainCar-v0",
        (Row("ppo", 1_000_000, Bar(-120)), *_rows(1_000_000, "actor_critic", "leave_one_out")),
        floor=-200.0,
        best=-107.3,
        source="TRPO, zoo",
    ),
    Task(
        "Pendulum-v1",
        _rows(1_000_000, "ppo", "state_std_ppo", bar=Bar(-180)),
        floor=-1288.0,
        best=-130.2,
        source="evolution strategies (40M), gymnax-blines; A2C −163 (1M), zoo",
    ),
    Task(
        "MountainCarContinuous-v0",
        (Row("ppo", 500_000, Bar(90, 14 / 20)), Row("actor_critic", 500_000)),
        floor=-33.4,
        best=92.5,
        source="TRPO, zoo",
    ),
)
# Within the budgets of SLM-Lab, whose figures are moving averages of returns during training.
SHORTER = (
    Task(
        "CartPole-v1-200k",
        (
            *_rows(200_000, "leave_one_out", "time_baseline", bar=Bar(490)),
            *_rows(200_000, "actor_critic", "ppo", bar=Bar(499)),
        ),
        floor=22.1,
        best=498.9,
        source="PPO, SLM-Lab 2026, training returns; A2C 496.7, REINFORCE 483.3",
        env="CartPole-v1",
    ),
    Task(
        "Acrobot-v1-300k",
        _rows(300_000, "ppo", bar=Bar(-78)),
        floor=-500.0,
        best=-81.3,
        source="PPO, SLM-Lab 2026, training returns; A2C −84.0",
        env="Acrobot-v1",
    ),
    Task(
        "Pendulum-v1-300k",
        _rows(300_000, "ppo", "state_std_ppo", bar=Bar(-165)),
        floor=-1288.0,
        best=-174.9,
        source="PPO, SLM-Lab 2026, training returns",
        env="Pendulum-v1",
    ),
)
BSUITE = (
    Task(
        "Catch-bsuite",
        (*_rows(100_000, *_BASELINES, bar=_CATCH), Row("reinforce", 100_000)),
        floor=-0.59,
        best=1.0,
        source=f"{_BLINES} (96k); the maximum",
    ),
    Task(
        "DeepSea-bsuite",
        _rows(150_000, "actor_critic", "ppo", bar=Bar(0.98, 18 / 20)),
        floor=0.011,
        best=0.99,
        source=f"the maximum; {_BLINES} 0.0",
    ),
    Task(
        "DiscountingChain-bsuite",
        # 1.1 in single precision
        _rows(150_000, "standardised", "leave_one_out", bar=Bar(1.099, 14 / 20)),
        floor=1.02,
        best=1.1,
        source=f"{_BLINES} (144k); the maximum",
    ),
    Task(
        "UmbrellaChain-bsuite",
        _rows(200_000, "leave_one_out", "ppo", bar=Bar(0.9)),
        floor=0.0,
        best=1.0,
        source=f"the maximum; {_BLINES} 0.98",
        # a return has a standard deviation of 3, whatever the policy: 4,000 episodes in all
        episodes=200,
    ),
    Task(
        "MemoryChain-bsuite",
        (Row("recurrent_ppo", 500_000, Bar(0.95)), Row("ppo", 500_000)),
        floor=0.0,
        best=1.0,
        source=f"the maximum; {_BLINES} without memory −0.11",
    ),
    # The arms are redrawn at every step: nothing can be learned, and an estimator that does
    # better is wrong.
    Task(
        "SimpleBandit-bsuite",
        _rows(100_000, "leave_one_out", "ppo"),
        0.5,
        0.5,
        "the optimum: nothing to learn",
    ),
)
MISC = (
    Task(
        "FrozenLake-misc",
        (Row("ppo", 500_000, Bar(0.70)),),
        floor=0.022,
        best=0.744,
        source="the optimum in 100 steps, by dynamic programming",
    ),
    Task(
        "FourRooms-misc",
        (Row("ppo", 500_000, Bar(0.95)),),
        floor=0.55,
        best=1.0,
        source=f"{_BLINES}, from images; the maximum",
    ),
    Task(
        "BernoulliBandit-misc",
        (Row("recurrent_ppo", 1_000_000, Bar(88)), Row("ppo", 1_000_000)),
        floor=50.0,
        best=89.3,
        source="recurrent A2C, gymnax; an oracle has 90",
    ),
    Task(
        "PointRobot-misc",
        (Row("recurrent_ppo", 6_400_000, Bar(10.4)), Row("ppo", 1_000_000)),
        floor=0.125,
        best=10.4,
        source=_ES,
    ),
    Task("MetaMaze-misc", _rows(1_000_000, "ppo"), 7.7, 32.4, _ES),
    Task("Reacher-misc", _rows(1_000_000, "ppo"), 16.8, None, "none"),
    Task("Swimmer-misc", _rows(1_000_000, "ppo"), 80.9, None, "none"),
    Task("Pong-misc", _rows(300_000, "ppo"), 83.7, 1000.0, "the maximum"),
)
# The published policies were evaluated by sampling from them.
MINATAR = tuple(
    Task(f"{game}-MinAtar", (Row("ppo", 20_000_000, bar),), floor, best, source, seeds=10)
    for game, bar, floor, best, source in (
        ("Breakout", Bar(55, actions="sampled"), 0.42, 50.0, f"{_PGX}; gymnax-blines 43.4"),
        ("Asterix", Bar(18, actions="sampled"), 0.41, 17.8, _BLINES),
        ("Freeway", Bar(64, actions="sampled"), 0.25, 63.5, f"{_PGX}; gymnax-blines 58.8"),
        (
            "SpaceInvaders",
            Bar(155, actions="sampled"),
            4.0,
            153.0,
            f"{_PGX}, 145 to 153; gymnax-blines 131.6",
        ),
        ("Seaquest", Bar(54, actions="sampled"), 0.07, 54.0, _PGX),
    )
)

# In Python, by `pip install gymnasium[mujoco]`. Floors are of 1000 random episodes, of 100 for
# HalfCheetah; the published figures are of v3, one run each.
MUJOCO = tuple(
    Task(
        name,
        _rows(1_000_000, "ppo", bar=Bar(best)),
        floor,
        best,
        "PPO (1M, v3), zoo",
        env=f"gymnasium:{name}",
        seeds=10,
    )
    for name, floor, best in (
        ("Hopper-v5", 17.6, 2410.4),
        ("Walker2d-v5", 1.8, 3478.8),
        ("HalfCheetah-v5", -282.5, 5819.1),
    )
)

# Environments of other JAX libraries. Floors are of 1000 random episodes, of 200 of CartpoleSwingup
# and 100 of Craftax-Classic; where actions are masked, of legal actions.
LIBRARIES = (
    Task(
        "connect_four-pgx",  # against an opponent that acts at random
        _rows(300_000, "ppo", "unmasked_ppo"),
        floor=-0.01,
        best=1.0,
        source="the maximum",
        env="pgx:connect_four",
    ),
    Task(
        "Knapsack-jumanji",
        _rows(300_000, "ppo", "unmasked_ppo"),
        floor=13.6,
        best=None,
        source="none",
        env="jumanji:Knapsack-v1",
    ),
    Task(
        "CartpoleSwingup-playground",
        _rows(1_000_000, "ppo"),
        floor=45.8,
        best=1000.0,
        source="the maximum",
        env="playground:CartpoleSwingup",
    ),
    Task(
        "Craftax-Classic",
        _rows(1_000_000, "ppo"),
        floor=1.31,
        best=22.0,
        source="the maximum; from pixels DreamerV3 11.7 (53.2 %, 1M), 2502.01591",
        env="craftax:Craftax-Classic-Symbolic-v1",
    ),
)

SUITES: dict[str, tuple[Task, ...]] = {
    "classic": CLASSIC,
    "shorter": SHORTER,
    "bsuite": BSUITE,
    "misc": MISC,
    "minatar": MINATAR,
    "all": CLASSIC + SHORTER + BSUITE + MISC + MINATAR,
    # left out of "all", as they need further packages
    "mujoco": MUJOCO,
    "libraries": LIBRARIES,
}
TASKS = {task.name: task for task in SUITES["all"] + MUJOCO + LIBRARIES}


def row_of(name: str, label: str) -> Row | None:
    """The row of an environment and a label; None if the table has none."""
    rows = TASKS[name].rows if name in TASKS else ()
    return next((row for row in rows if row.label == label), None)
