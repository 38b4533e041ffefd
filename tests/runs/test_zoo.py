"""The policies that come with the package: their names, how they are made, and their scores."""

import importlib.util
import json
import os
import re
import runpy
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

import pg
from pg.benchmarks import learning, selection
from pg.benchmarks import zoo as making
from pg.benchmarks.suites import Bar, Row
from pg.commands import cli, evaluate, export
from pg.commands import zoo as command
from pg.config import Config, Hyperparams
from pg.presets import preset
from pg.runs import folders, zoo

ROOT = Path(__file__).parents[2]
ENV = "DeepSea-bsuite"


def tiny(task: object, row: Row) -> tuple[Config, Hyperparams]:
    settings = {"num_updates": 2, "num_steps": 8, "num_envs": 2, "hidden_sizes": (8,)}
    further = {"num_epochs": 1, "num_minibatches": 1, "normalise_observations": True}
    return preset(row.label, env=ENV, **settings, **further)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row of two seeds."""
    out = tmp_path_factory.mktemp("benchmark")
    rows = selection.select("bsuite", (ENV,), ("ppo",))
    assert learning.run(rows, tiny, out, seeds=2, episodes=3) is None
    return out


def with_bar(monkeypatch: pytest.MonkeyPatch, bar: Bar | None) -> None:
    monkeypatch.setattr(making, "row_of", lambda env, label: Row(label, 100, bar))


def test_the_best_seed_of_a_good_row_is_made_a_policy(
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_bar(monkeypatch, Bar(-10.0, actions="sampled"))
    lines = learning.collect(benchmark)
    best = max(lines, key=lambda line: line.sampled)
    (kept,) = making.selected(benchmark)
    assert (kept.name, kept.seed) == (f"{ENV}/ppo", best.seed)
    asked = ["--benchmark", str(benchmark), "--out", str(tmp_path), "--episodes", "4"]
    for _ in range(2):  # the second takes the place of the first
        assert command.main(asked) == 0
    (entry,) = zoo.entries(tmp_path)
    assert entry == making.make(kept, tmp_path, episodes=4)
    assert (entry.training_seed, entry.greedy, entry.seed) == (best.seed, False, making.SEED)
    assert entry.versions["jax"] == jax.__version__
    listed = capsys.readouterr().out.splitlines()[-1].split()
    assert listed[0] == f"{ENV}/ppo"
    assert "sampled" in listed
    stored = pg.load_policy(zoo.resolved(f"{ENV}/ppo", tmp_path))
    trained = pg.load_policy(kept.folder, seed=kept.seed)
    jax.tree.map(np.testing.assert_array_equal, stored.params, trained.params)
    assert stored.config == trained.config
    again = making.evaluated(trained, making.SEED, 4, greedy=False)
    assert again.mean() == pytest.approx(entry.mean, rel=1e-6)
    files = {path.name: path.read_text() for path in (tmp_path / ENV / "ppo").glob("*.json")}
    assert not [name for name, text in files.items() if str(tmp_path.parent) in text]


def test_rows_that_miss_their_bar_or_are_beaten_have_no_policy(
    benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_bar(monkeypatch, Bar(10.0))
    assert making.selected(benchmark) == []
    with_bar(monkeypatch, None)
    scored = [
        learning.Result(ENV, label, seed, score, score, 9)
        for label, score in (("ppo", 0.5), ("actor_critic", 0.4))
        for seed in (0, 1)
    ]
    monkeypatch.setattr(learning, "collect", lambda out: scored)
    assert [kept.label for kept in making.selected(benchmark)] == ["ppo"]
    below = [line._replace(greedy=-1.0) for line in scored]  # a random policy has 0.011
    monkeypatch.setattr(learning, "collect", lambda out: below)
    assert making.selected(benchmark) == []
    monkeypatch.setattr(learning, "collect", lambda out: scored)
    assert making.selected(benchmark, labels=("actor_critic",)) == []


def test_a_policy_that_is_large_is_left_out(
    benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_bar(monkeypatch, Bar(-10.0))
    monkeypatch.setattr(making, "LARGEST", 100)
    (kept,) = making.selected(benchmark)
    assert making.make(kept, tmp_path, episodes=2) is None
    assert zoo.names(tmp_path) == []


def test_commands_take_a_policy_of_the_zoo_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "DiscountingChain-bsuite/standardised"
    entry = zoo.read_entry(name)
    flags = [name, "--episodes", str(entry.episodes), *(["--greedy"] if entry.greedy else [])]
    assert evaluate.main([*flags, "--out", "result.json"]) == 0
    result = folders.read_json(Path("result.json"), {"mean": float, "eval_seed": int})
    assert result["mean"] == pytest.approx(entry.mean, rel=1e-6)
    assert result["eval_seed"] == entry.seed
    assert "evaluation, 1,000 episodes" in capsys.readouterr().out
    assert export.main([name]) == 0
    assert (tmp_path / "DiscountingChain-bsuite-standardised-export" / "policy.json").exists()
    start = pg.load_params(name)
    arrays = safetensors.numpy.load_file(zoo.FOLDER / name / "params.safetensors")
    assert {x.shape for x in start.arrays.values()} <= {x.shape[1:] for x in arrays.values()}


def test_a_mistake_with_a_policy_of_the_zoo_is_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags, said in (
        (["CartPole-v1/ppo", "--best"], "best and update_summary are for runs"),
        (["CartPole-v1/pppo"], "the zoo has no policy of that name: it has CartPole-v1/"),
    ):
        with pytest.raises(SystemExit):
            evaluate.main(flags)
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        command.main(["--env", "CartPole"])
    assert "unknown env 'CartPole': did you mean 'CartPole-v1'" in capsys.readouterr().err


def test_a_signal_ends_a_command_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that stores nothing."""

    def interrupted(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(zoo, "entries", interrupted)
    assert command.main([]) == cli.AGAIN
    assert capsys.readouterr().out == "interrupted\n"


def test_a_folder_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.resolved("CartPole-v1/ppo") == zoo.FOLDER / "CartPole-v1/ppo"
    Path("CartPole-v1/ppo").mkdir(parents=True)
    assert zoo.resolved("CartPole-v1/ppo") == Path("CartPole-v1/ppo")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v1/pppo", r"it has CartPole-v1/actor_critic, "),
        ("Cartpole-v1/ppo", r"it has .*CartPole-v1/ppo"),
        ("results/nowhere", r"no policy of that name; give the folder that pg train"),
    ],
)
def test_a_name_of_no_policy(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"there is no run {name}, and .*{message}"):
        pg.load_policy(name)


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "CartPole-v1" / "ppo"
    folder.mkdir(parents=True)
    (folder / zoo.EVALUATION).write_text(json.dumps({"evaluation": {}}))
    with pytest.raises(ValueError, match=re.escape(f"{folder / zoo.EVALUATION} does not hold")):
        zoo.entries(tmp_path)


def test_every_policy_of_the_package_is_whole_and_small() -> None:
    entries = zoo.entries()
    assert len(entries) >= 30
    folders_there = {path.parent for path in zoo.FOLDER.glob("*/*/params.safetensors")}
    assert folders_there == {zoo.FOLDER / entry.name for entry in entries}
    for entry in entries:
        assert entry.episodes >= 1000
        assert np.isfinite(entry.mean)
        assert entry.seed == making.SEED
        folder = zoo.FOLDER / entry.name
        arrays = safetensors.numpy.load_file(folder / "params.safetensors")
        assert arrays
        assert all(np.isfinite(x).all() for x in arrays.values())
        assert sum(path.stat().st_size for path in folder.iterdir()) < making.LARGEST + 10_000


def test_every_library_has_a_policy_and_says_so_where_it_is_missing() -> None:
    """An environment of a library that is not installed is one sentence, with what installs it."""
    by_library = {library_of(name): name for name in zoo.names()}
    assert {"gymnasium", "jumanji", "pgx", "playground", ""} == set(by_library)
    for library, name in by_library.items():
        if is_installed(library):
            pg.load_policy(name)
        else:
            with pytest.raises(ValueError, match=r"pip install .*" + library):
                pg.load_policy(name)


def library_of(name: str) -> str:
    """The library of a policy's environment; empty for gymnax."""
    library, separator, _ = folders.read_stored(zoo.FOLDER / name)["config"]["env"].partition(":")
    return library if separator else ""


def is_installed(library: str) -> bool:
    """True where the environments of a library can be made."""
    package = {"": "gymnax", "gymnasium": "mujoco", "playground": "mujoco_playground"}.get(
        library, library
    )
    return importlib.util.find_spec(package) is not None


# episodes; windows; standardised observations and a continuous action
AGAIN = ("CartPole-v1/leave_one_out", "CartPole-v1/ppo", "MountainCarContinuous-v0/ppo")


@pytest.mark.parametrize("name", AGAIN)
def test_a_policy_scores_what_is_recorded(name: str) -> None:
    """On other episodes, within four standard errors of the difference."""
    entry = zoo.read_entry(name)
    returns = making.evaluated(pg.load_policy(name), 20_000, 50, greedy=entry.greedy)
    error = np.hypot(returns.std(ddof=1) / len(returns) ** 0.5, entry.standard_error)
    assert abs(returns.mean() - entry.mean) <= 4.0 * error + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
@jax.numpy_rank_promotion("allow")  # gymnax's Swimmer needs it
def test_every_policy_scores_what_is_recorded(name: str) -> None:
    """By the recorded seed and episodes: equal, but for rounding that other processors do."""
    if not is_installed(library := library_of(name)):
        pytest.skip(f"{library} is not installed")
    entry = zoo.read_entry(name)
    found = making.evaluated(pg.load_policy(name), entry.seed, entry.episodes, greedy=entry.greedy)
    assert abs(found.mean() - entry.mean) <= 4.0 * 2**0.5 * entry.standard_error + 1e-6


def test_the_gallery_has_a_film_of_every_environment_that_can_be_drawn() -> None:
    """As `experiments/gallery.py --out docs/images/gallery --report docs/gallery.md` writes it."""
    gallery = runpy.run_path(str(ROOT / "experiments" / "gallery.py"))
    report, films = ROOT / "docs" / "gallery.md", ROOT / "docs" / "images" / "gallery"
    shown = gallery["best_drawn"](zoo.entries())
    assert len(shown) >= 3
    start, end = gallery["MARKS"]
    text = report.read_text(encoding="utf-8")
    assert text.split(start)[1].split(end)[0].strip() == gallery["page"](shown, films, report)
    assert {path.name for path in films.glob("*.gif")} == {
        gallery["film_of"](entry, films).name for entry in shown
    }
