"""The README's code runs as it stands, and its commands exist."""

import re
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_as_it_stands() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    namespace: dict[str, object] = {}
    with jax.numpy_rank_promotion("allow"):  # a user's setting
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["metrics"]["return"].shape == (3,)  # type: ignore[index]


def test_the_table_of_the_theorem_is_the_code_below_it() -> None:
    table = README.split("| mathematics | code |")[1].split("In full")[0]
    lines = re.findall(r"\| `([^`]+)` \|$", table, re.MULTILINE)
    assert len(lines) == 6
    code = README.split("def improve")[1].split("```")[0]
    for line in lines[:-1]:
        assert line in code, line
    assert "jax.tree.map(lambda p, g: p + alpha * g, theta, g)" in code


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"train", "test"} <= set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)) <= targets
    for path in re.findall(r"(?:experiments|docs)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
