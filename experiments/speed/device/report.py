"""The page of what was measured on an accelerator: every cell a figure, or "not measured"; one
line for a section without any figure.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

from device import plan

NOT_MEASURED = "not measured"
FAILED = "failed"
HEAD = """# On an accelerator

{status}

```console
$ python experiments/accelerator.py --out results/accelerator --minutes 9
$ python experiments/accelerator.py --from results/accelerator/accelerator.json \\
    --report docs/accelerator.md
```

The first command checks and measures, the most wanted first, and writes each result at once;
started again, it goes on with what is missing. The second writes this page. A machine without a
network needs the dependencies of pyproject.toml; the first command names those that it lacks, which
are brought as wheels, of the machine's Python and system where they are compiled:

```console
$ python -m pip download --no-deps -d wheels NAME ...
$ python -m pip install --no-index --find-links wheels --no-deps NAME ...
```
"""
ANCHORS = """## What others report

Not measured here: figures of other programs, on other hardware, by which to judge the order of
magnitude.

{table}
"""
OTHERS = (
    ("program", "figure", "source"),
    (
        "rejax, PPO on Breakout (MinAtar), an A100",
        "about 95,000 steps/s of one agent, 5 million over 300",
        "read off the [figure](https://github.com/keraJLi/rejax) of Liesen, Lu and Lange 2024",
    ),
    (
        "pgx, PPO on its MinAtar games, one GPU",
        "20 million steps in 30 to 75 s",
        "Koyamada et al. 2023, [2303.17503](https://arxiv.org/abs/2303.17503), appendix, and its "
        "[example](https://github.com/sotetsuk/pgx/tree/main/examples/minatar-ppo)",
    ),
    (
        "PufferLib 3.0, environments in C, an RTX 5090",
        "up to 4 million steps/s",
        "its [announcement](https://puffer.ai/blog.html)",
    ),
)


def page(results: Mapping[str, Any] | None) -> str:
    """The page in Markdown. results: of `driver.run`; None: nothing has been measured."""
    results = results or {"smoke": False, "sections": {}}
    sections = plan.sections(smoke=results["smoke"])
    parts = [HEAD.format(status=status(results, sections))]
    for section in sections:
        parts.append(_section(section, results["sections"].get(section.name, {})))
    parts.append(ANCHORS.format(table=_table(OTHERS)))
    return "\n".join(parts)


def status(results: Mapping[str, Any], sections: tuple[plan.Section, ...]) -> str:
    """A paragraph on what was measured, where and when."""
    rows = [(section.name, row.name) for section in sections for row in section.rows]
    answers = [results["sections"].get(section, {}).get(row, {}) for section, row in rows]
    measured = sum("result" in answer for answer in answers)
    if measured == 0:
        return "**Nothing here has been measured**: no accelerator was at hand."
    facts = results["sections"].get("worker.machine", {})
    device = facts.get("device", {}).get("result", {}).get("value", "a device that is not known")
    date = results.get("date", "on a day that is not known")
    said = f"{measured} of {len(rows)} rows measured on {device}, {date}."
    if results["smoke"]:
        said = f"**A trial of the program with tiny sizes: no figure below says anything.** {said}"
    return said


def _section(section: plan.Section, answers: Mapping[str, Any]) -> str:
    """A heading, the text, the table, and what failed."""
    text = textwrap.fill(section.text, 120, break_on_hyphens=False)
    heads = [column.head for column in section.columns]
    if not answers:
        nothing = f"{NOT_MEASURED.capitalize()}: {len(section.rows)} rows of {'; '.join(heads)}."
        return f"## {section.title}\n\n{text}\n\n{nothing}\n"
    rows = [("", *heads)]
    failures = []
    for row in section.rows:
        answer = answers.get(row.name, {})
        rows.append((row.name, *_cells(section, answer)))
        if "error" in answer:
            failures.append(f"- {row.name}: {_plain(answer['error'])}")
    parts = [f"## {section.title}", text, _table(rows), "\n".join(failures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(section: plan.Section, answer: Mapping[str, Any]) -> list[str]:
    if "error" in answer:
        return [FAILED] * len(section.columns)
    result = answer.get("result", {})
    return [_cell(column, result.get(column.key)) for column in section.columns]


def _cell(column: plan.Column, value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if isinstance(value, str):
        return _plain(value)
    return column.form.format(value)


def _plain(text: str) -> str:
    """A text that breaks no table."""
    return text.replace("|", "/").replace("\n", " ") or "none"


def _table(rows: Any) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
