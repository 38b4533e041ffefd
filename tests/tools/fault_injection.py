"""Kill runs at random moments, let them go on, and see that they end as if nothing had happened.

    python tests/tools/fault_injection.py             100 kills; exit code 1 if anything was wrong
    python tests/tools/fault_injection.py --signals SIGKILL     by one signal only
    python tests/tools/fault_injection.py --quick               4 kills of the shortest run

A trial starts a run or a sweep, kills it once to three times, and then lets it end: the same
command every time. A moment is drawn uniformly from the length of an uninterrupted run, or, every
other time, from what follows its first word of progress: most of so short a run is its start. The
folder must then hold, bit for bit, what an uninterrupted run has left. After every kill it must be
fit to go on from, and the next start must go on from the newest checkpoint that was whole. On
Linux.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors

from pg.commands import cli
from pg.reports import tables
from pg.runs import checkpoints, folders
from pg.runs.execution import PartialRun
from pg.train import make_learner

ROOT = Path(__file__).parents[2]
GRACE = 10.0  # seconds from a signal to the end of the process, at most
PATIENCE = 900.0  # seconds for a run to end by itself
MOST_KILLS = 3  # of a trial
PROGRESS = re.compile(r"^(\d+)/(\d+) updates,", re.MULTILINE)
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGTERM", "SIGINT", "SIGUSR1")  # what is drawn from
CODES = {
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": cli.AGAIN,
    "SIGUSR1": cli.AGAIN,
    "SIGINT": cli.INTERRUPTED,
}
STAGES = ("start", "compilation", "training", "saving", "after training")
SMALL = (
    "--num-envs 8 --hidden-sizes 8 --checkpoint-updates 5 --checkpoints-kept 2 --eval-episodes 8"
)
# of an SVG: the time, random names
OF_THE_MOMENT = re.compile(rb"<dc:date>[^<]*</dc:date>|\b[a-z][0-9a-f]{10}\b")
# which tell of the process, or of the folder
BESIDES = {"config.json", "versions.json", "sweep.json", ".lock"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A command, and the updates of each of its runs."""

    name: str
    script: str
    arguments: str
    updates: int

    def command(self, out: Path) -> list[str]:
        """It, with its folder in `out`; the same `out` goes on."""
        name = ["--name", out.name] if self.script == "train.py" else []
        size = ["--num-updates", str(self.updates), "--out", str(out)]
        path = str(ROOT / "experiments" / self.script)
        return [sys.executable, path, *SMALL.split(), *self.arguments.split(), *size, *name]


CASES = (
    Case("reinforce", "train.py", "--estimator reinforce", 240),
    Case(
        "actor_critic",
        "train.py",
        "--estimator actor_critic --num-steps 8 --normalise-observations --scale-rewards --seeds 2",
        480,
    ),
    Case(
        "sweep",
        "sweep.py",
        "--estimator reinforce --over learning_rate=0.003,0.01 --seeds 2 --width 2 --fresh-seeds 2",
        120,
    ),
    Case(
        "ppo, gru",
        "train.py",
        "--estimator ppo --rnn gru --rnn-size 8 --num-steps 16 --num-epochs 2 --num-minibatches 2",
        480,
    ),
)
QUICK = (dataclasses.replace(CASES[0], updates=80),)


@dataclasses.dataclass
class Ended:
    """A process that has ended."""

    code: int
    seconds: float  # from its start to its end
    first: float  # and to its first word of progress, if it was waited for
    text: str  # what it has said
    kill: str | None = None  # the signal that it was sent, while it lived
    listening: bool = False  # the signal was one that it had asked for
    after: float = 0.0  # seconds from the signal to its end

    @property
    def progress(self) -> tuple[int, int]:
        """Updates done and to be done, by what it last said of them; (0, 1): nothing."""
        found = PROGRESS.findall(self.text)
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, 1)

    @property
    def went_on(self) -> list[int]:
        """The updates after which it went on."""
        return [
            int(n)
            for n in re.findall(
                r"^continuing after update "
                r"(\d+)$",
                self.text,
                re.MULTILINE,
            )
        ]

    def stage(self, *, saving: bool) -> str:
        """The place of the interruption."""
        done, total = self.progress
        if saving:
            return "saving"
        if done:
            return "training" if done < total else "after training"
        return "compilation" if "compiling ..." in self.text else "start"


@dataclasses.dataclass
class Account:
    """The results of all trials."""

    kills: Counter[str] = dataclasses.field(default_factory=Counter)
    stages: Counter[str] = dataclasses.field(default_factory=Counter)
    trials: Counter[str] = dataclasses.field(default_factory=Counter)  # by case
    identical: Counter[str] = dataclasses.field(default_factory=Counter)
    kills_of: Counter[str] = dataclasses.field(default_factory=Counter)
    # seconds from a signal to the end
    slowest: dict[str, float] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    strays: int = 0  # files that kills left half written
    most_strays: int = 0  # in one folder

    def add(self, case: Case, ended: Ended, folder: Path | None) -> str:
        """Counts a kill; says it."""
        assert ended.kill
        strays = (
            Counter(path.parent for path in folder.rglob(".*.tmp")) if folder else Counter[Path]()
        )
        self.strays += strays.total()
        self.most_strays = max([self.most_strays, *strays.values()])
        stage = ended.stage(saving=bool(strays))
        self.kills[ended.kill] += 1
        self.kills_of[case.name] += 1
        self.stages[stage] += 1
        if ended.listening:
            self.slowest[ended.kill] = max(self.slowest.get(ended.kill, 0.0), ended.after)
        return f"{ended.kill} in {stage} after {ended.seconds - ended.after:.1f} s"


def run(
    command: list[str],
    log: Path,
    environment: Mapping[str, str],
    *,
    kill: str | None = None,
    moment: float = 0.0,
    training: bool = False,
) -> Ended:
    """Runs it to its end, which may be by the signal `kill`; what it says stands in `log`.

    moment: seconds until the signal, from the start, or, with `training`, from the first word of
    progress.
    """
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        )
    sent, listening = None, False
    try:
        while (
            training
            and process.poll() is None
            and not PROGRESS.search(log.read_text(errors="replace"))
        ):
            time.sleep(0.005)
        first = time.monotonic() - began
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment if kill else PATIENCE)
        if kill and process.poll() is None:
            listening, sent = listens(process.pid), time.monotonic()
            process.send_signal(getattr(signal, kill))
            process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    ended = time.monotonic()
    told = Ended(process.returncode, ended - began, first, log.read_text(errors="replace"))
    return (
        told
        if sent is None
        else dataclasses.replace(told, kill=kill, listening=listening, after=ended - sent)
    )


def listens(pid: int) -> bool:
    """True for a process with a handler for SIGTERM: then it has one for all that `interrupts`
    listens to.
    """
    with contextlib.suppress(OSError, AttributeError):
        found = re.search(
            r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
        return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


# What is in a folder


def folder_of(out: Path) -> Path | None:
    """The folder of the only run in OUT/ENV/ESTIMATOR; None: it is not there yet."""
    return next(iter(out.glob("*/*/*")), None)


def restored(folder: Path, step: int) -> PartialRun | None:
    """The checkpoint after update `step`, read from a copy; None: it is not whole."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch, "copy")))
        checkpoints.forget_after(copy, step)
        try:
            with safetensors.safe_open(next(copy.glob(f"{step:08}.*")), framework="numpy") as file:
                about = json.loads(file.metadata()["pg"])
            learner = make_learner(*folders.stored_settings(about["setup"]))
            like = jax.eval_shape(learner.init, jax.random.key(0))
            found = checkpoints.restore(copy, like, about, about["num_kept"])
        except (ValueError, KeyError, safetensors.SafetensorError):
            return None
    return found.partial if found and found.partial.updates == step else None


def places(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The folders of checkpoints from which a next start may go on, and whether it must find them
    in order.

    Of a sweep: that of a chunk that is not finished, and that of the best setting, which is removed
    at the end.
    """
    above = folder / "checkpoints"
    parts = sorted([*above.glob("chunk-*"), *above.glob("best-*")])
    if not (folder / "runs").is_dir():
        yield from [(above, True)] if above.is_dir() else []
    for place in parts:
        chunk = folder / "runs" / f"{place.name.removeprefix('chunk-')}.parquet"
        if not chunk.exists():
            yield place, not (place.name.startswith("best-") and (folder / "summary.json").exists())


def newest(folder: Path | None, problems: list[str]) -> list[int]:
    """The updates of the newest whole checkpoint of every place in which there is one; tells what
    is not in order.
    """
    found = []
    for place, in_order in places(folder) if folder else ():
        steps = checkpoints.steps(place)
        whole = [step for step in steps if restored(place, step)]
        found += whole[:1]
        if in_order:
            problems += [f"checkpoint {step} is corrupt" for step in steps[:2] if step not in whole]
            try:
                checkpoints.read_metrics(place)
            except ValueError as error:
                problems.append(str(error))
    return found


def contents(folder: Path) -> dict[str, Any]:
    """All that must be the same in two folders, by what it is."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith("checkpoints") or path.name in BESIDES:
            continue
        if path.suffix == ".parquet":
            found |= {
                f"{name}: {column}": bits(x) for column, x in tables.read_parquet(path).items()
            }
        elif path.suffix == ".json":
            found[name] = without_seconds(json.loads(path.read_text()))
        else:
            found[name] = OF_THE_MOMENT.sub(b"", path.read_bytes())
    above = folder / "checkpoints"
    for step in checkpoints.steps(above)[:1] if above.is_dir() else ():
        partial = restored(above, step)
        found["last checkpoint"] = step
        for leaf_path, leaf in jax.tree.leaves_with_path(partial):
            found[f"last checkpoint: {jax.tree_util.keystr(leaf_path)}"] = bits(np.asarray(leaf))
    return found


def bits(x: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes of an array."""
    return str(x.dtype), x.shape, repr(x.tolist()).encode() if x.dtype == object else x.tobytes()


def without_seconds(data: Any) -> Any:
    """JSON without what was measured by a clock."""
    if isinstance(data, Mapping):
        return {name: without_seconds(x) for name, x in data.items() if "seconds" not in name}
    return [without_seconds(x) for x in data] if isinstance(data, list) else data


def row_problems(folder: Path, updates: int) -> Iterator[str]:
    """The updates that metrics lack, or have twice, or out of order."""
    for path in folder.rglob("*.parquet"):
        table = tables.read_parquet(path)
        if path.parent.name in ("runs", "checkpoints") or "update" not in table:
            continue
        runs = table.get("run", table["seed"])
        for r in np.unique(runs):
            if not np.array_equal(table["update"][runs == r], np.arange(updates)):
                yield f"{path.name}: the updates of run {r} are not 0 .. {updates - 1}, once each"


# Trials


class FaultInjector:
    """Cases, each with what an uninterrupted run of it leaves, and the account."""

    def __init__(
        self, cases: tuple[Case, ...], folder: Path, seed: int, signals: Sequence[str]
    ) -> None:
        self.cases, self.folder, self.signals = cases, folder, signals
        self.deck: list[str] = []
        self.random, self.account = random.Random(seed), Account()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",  # what was said before a SIGKILL is there
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compilations"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.expected: dict[str, dict[str, Any]] = {}
        # seconds from the start, and from the first progress
        self.lengths: dict[str, tuple[float, float]] = {}

    def prepare(self, case: Case) -> None:
        """The uninterrupted run, twice: the second one need not compile, and must leave the
        same.
        """
        for turn in ("cold", "warm"):
            out = self.folder / case.name / turn
            out.mkdir(parents=True)
            ended = run(
                case.command(out), out.parent / f"{turn}.log", self.environment, training=True
            )
            folder = folder_of(out)
            if ended.code or not folder:
                raise SystemExit(f"{case.name} does not run, exit code {ended.code}:\n{ended.text}")
            found, self.lengths[case.name] = (
                contents(folder),
                (ended.seconds, ended.seconds - ended.first),
            )
            self.account.problems += [
                f"{case.name}: {x}" for x in row_problems(folder, case.updates)
            ]
            if differences := differing(self.expected.setdefault(case.name, found), found):
                raise SystemExit(f"{case.name} differs without any kill: {differences}")
            length = f"{ended.first:.1f} + {ended.seconds - ended.first:.1f} s {turn}"
            print(f"{case.name}: {length}, {len(found)} things to compare", flush=True)

    def draw(self) -> str:
        """A signal: all of them in random order, and then again."""
        if not self.deck:
            self.deck = self.random.sample(self.signals, len(self.signals))
        return self.deck.pop()

    def trial(self, number: int, most: int) -> int:
        """One run, killed up to `most` times, resumed to its end and compared. The number of
        kills.
        """
        case = self.cases[number % len(self.cases)]
        out = self.folder / case.name / f"trial-{number}"
        out.mkdir()
        kills, said, problems, ended = 0, list[str](), list[str](), None
        while ended is None or ended.code:
            kill = self.draw() if kills < most else None
            training = kill is not None and self.random.random() < 0.5
            moment = self.random.uniform(0.0, self.lengths[case.name][training])
            expected, log = newest(folder_of(out), []), out.parent / f"{number}.log"
            ended = run(
                case.command(out),
                log,
                self.environment,
                kill=kill,
                moment=moment,
                training=training,
            )
            problems += self.judge(case, ended, expected, folder_of(out))
            if ended.kill:
                said.append(self.account.add(case, ended, folder_of(out)))
                kills += 1
            elif ended.code:
                problems.append(f"exit code {ended.code} without a kill:\n{ended.text[-2000:]}")
                break
            elif not kills:  # no kill came in time: the machine is not as busy as it was
                scale = ended.seconds / self.lengths[case.name][0]
                self.lengths[case.name] = (
                    scale * self.lengths[case.name][0],
                    scale * self.lengths[case.name][1],
                )
        differences = self.compare(case, folder_of(out), problems)
        self.account.trials[case.name] += 1
        self.account.identical[case.name] += not differences
        problems += (
            [f"differs in {', '.join(differences[:5])}, {len(differences)} in all"]
            if differences
            else []
        )
        self.account.problems += [f"trial {number}, {case.name}: {x}" for x in problems]
        verdict = "identical" if not differences else f"{len(differences)} DIFFERENCES"
        print(
            f"trial {number}, {case.name}: {', '.join(said) or 'no kill came in time'}: {verdict}",
            flush=True,
        )
        for problem in problems:
            print(f"  PROBLEM: {problem}", flush=True)
        if not problems:
            shutil.rmtree(out)
        return kills

    def judge(
        self, case: Case, ended: Ended, expected: list[int], folder: Path | None
    ) -> Iterator[str]:
        """The faults after a process has ended, killed or not; expected: where it goes on."""
        # it may not have come so far
        too_early = ended.kill and not ended.went_on and not ended.progress[0]
        if ended.went_on[:1] != expected[:1] and not too_early:
            wanted = f"the newest whole checkpoint was {expected[:1]}"
            yield f"went on after {ended.went_on[:1]}, and {wanted}"
        if ended.kill is None:
            return
        problems: list[str] = []
        there = newest(folder, problems)
        yield from (f"after {ended.kill}: {x}" for x in problems)
        strays = (
            Counter(path.parent for path in folder.rglob(".*.tmp")) if folder else Counter[Path]()
        )
        yield from (
            f"after {ended.kill}: {n} strays in {path}" for path, n in strays.items() if n > 1
        )
        if ended.kill == "SIGKILL":
            return
        # Before it listens, a signal has its usual effect; at the very end it comes too late.
        usual = () if ended.listening else (-getattr(signal, ended.kill), 1)
        if ended.code not in (CODES[ended.kill], 0, *usual):
            yield f"exit code {ended.code} after {ended.kill}:\n{ended.text[-2000:]}"
        if ended.after > GRACE:
            yield f"ended {ended.after:.1f} s after {ended.kill}"
        if (done := ended.progress[0] % case.updates) and max(there, default=0) < done:
            yield f"{done} updates were done, and after {ended.kill} the checkpoints are {there}"
        said = re.search(r"^interrupted after ([\d,]+) of", ended.text, re.MULTILINE)
        if said and there != [int(said[1].replace(",", ""))]:
            yield f"it says {said[0]}, and after {ended.kill} the checkpoints are {there}"

    def compare(self, case: Case, folder: Path | None, problems: list[str]) -> list[str]:
        """The differences from the uninterrupted run, at the end of a trial."""
        if folder is None:
            return ["everything: there is no folder"]
        problems += row_problems(folder, case.updates)
        problems += [f"{path} is left over" for path in folder.rglob(".*.tmp")]
        return differing(self.expected[case.name], contents(folder))


def differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The names of what is not the same, or only in one of them."""
    missing = object()
    return [
        name
        for name in sorted({*expected, *found})
        if expected.get(name, missing) != found.get(name, missing)
    ]


def report(account: Account, cases: tuple[Case, ...], minutes: float) -> str:
    """The account, for people."""
    n, same = account.trials.total(), account.identical.total()
    rows = [
        f"{case.name:<14}{account.kills_of[case.name]:>6} kills, "
        f"{account.identical[case.name]}/{account.trials[case.name]} identical"
        for case in cases
    ]
    slowest = ", ".join(
        f"{name} {seconds:.1f} s" for name, seconds in sorted(account.slowest.items())
    )
    kills = account.kills.total()
    return "\n".join(
        [
            *rows,
            "kills: "
            + ", ".join(f"{name} {account.kills[name]}" for name in CODES if account.kills[name]),
            "killed in: " + ", ".join(f"{name} {account.stages[name]}" for name in STAGES),
            f"longest from a signal to the end: {slowest or 'none was sent'}",
            f"half-written files: {account.strays} in all, at most {account.most_strays} in one "
            f"folder",
            f"{same}/{n} trials of {kills} kills identical, {len(account.problems)} problems, "
            f"{minutes:.0f} minutes",
            f"with 95% confidence at most {1 - 0.05 ** (1 / max(kills, 1)):.1%} of kills do harm"
            if same == n and not account.problems
            else "FAILED",
        ]
    )


def arguments() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--kills", type=int, default=100, help="kills to be done")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no trial after so many"
    )
    parser.add_argument(
        "--signals", nargs="+", choices=[*CODES], default=SIGNALS, help="what is drawn from"
    )
    parser.add_argument("--quick", action="store_true", help="4 kills of the shortest run")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folders of the trials that had problems"
    )
    return parser.parse_args()


def main() -> int:
    """0 if every trial ended as the uninterrupted run, all kills were done, and nothing else was
    wrong.
    """
    options = arguments()
    began, kills, number = time.monotonic(), 0, 0
    cases, wanted = (QUICK, min(options.kills, 4)) if options.quick else (CASES, options.kills)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    # each of them in four kills
    signals = [*dict.fromkeys(options.signals)] if options.quick else options.signals
    injector = FaultInjector(cases, folder, options.seed, signals)
    try:
        for case in cases:
            injector.prepare(case)
        while kills < wanted and time.monotonic() - began < 60 * options.minutes:
            most = min(
                wanted - kills, injector.random.randint(2 if options.quick else 1, MOST_KILLS)
            )
            kills += injector.trial(number, most)
            number += 1
            print(
                f"  {kills}/{wanted} kills, {(time.monotonic() - began) / 60:.1f} minutes",
                flush=True,
            )
    finally:
        if options.keep and injector.account.problems:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(report(injector.account, cases, (time.monotonic() - began) / 60))
    fine = injector.account.trials == injector.account.identical and not injector.account.problems
    return 0 if fine and kills >= wanted else 1


if __name__ == "__main__":
    raise SystemExit(main())
