"""Contenders, built-in and custom: estimators, problems, and the networks and the optimizer with
which the policies of all problems are trained.

    parts.json    field, name, file and sha256 of each custom part     code/NAME-SHA256.py    texts

A folder holds results of one version of the code under each name. Nothing in it is executed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pg.benchmarks import combinations
from pg.benchmarks.combinations import canonical_name, combination_of
from pg.benchmarks.leaderboard.problems import PROBLEMS, Problem, problem_of
from pg.estimators import family
from pg.estimators.facts import listed_name
from pg.estimators.names import NAMES
from pg.inputs import check_name
from pg.runs import code, folders
from pg.settings import own_files
from pg.settings.parts import check_choice, check_choices, check_part, row_name

# Parts with which the policies of all problems are trained.
TRAINING_PARTS = ("policy", "critic", "optimizer")
Part = tuple[str, Any]  # a field, and a name, an object or `FILE.py:NAME`


class Contenders(NamedTuple):
    """The problems and estimators of a measurement."""

    problems: dict[str, Problem]  # by name
    # name -> the name itself, for a listed one or a combination, or a function
    estimators: dict[str, Any]
    own: list[Part]  # the custom ones among all
    changed: list[Part]  # names of those for which the folder holds other code


def enter(
    problems: Sequence[Any],
    estimators: Sequence[Any],
    out: Path,
    parts: Mapping[str, Any],
    *,
    allow_changed_code: bool = False,
) -> Contenders:
    """The contenders, after checking that the folder's results are of the same code.

    Args:
        problems: names, of PROBLEMS, environments, or `FILE.py:NAME`.
        estimators: names, also of combinations, functions, or `FILE.py:NAME`.
        out: the folder.
        parts: custom `policy`, `critic` and `optimizer`; None: the default one.
        allow_changed_code: the code may differ.

    Raises:
        ValueError: there is no such problem or estimator, a part is of another kind, or the folder
            holds results of other code.
    """
    for field in parts:
        check_name("part", field, TRAINING_PARTS)
    estimators = [listed_name(x) or canonical_name(x) for x in estimators]
    check_choices("problems", problems, PROBLEMS)
    check_choices("estimators", estimators, NAMES, check=combinations.check)
    for field, part in parts.items():
        if isinstance(part, str):
            check_choice(field, part, ())
    given: list[Part] = [("problem", x) for x in problems]
    given += [("estimator", x) for x in estimators]
    given += [(field, x) for field, x in parts.items() if x is not None]
    changed = changed_parts(out, given, allow_changed_code=allow_changed_code)
    _check_training_parts(out, given)
    # only now: no file is executed until all are those of the folder
    loaded = [(field, _loaded(field, x)) for field, x in given]
    trained_with = {field: x for field, x in loaded if field in TRAINING_PARTS}
    entered = [problem_of(x, trained_with) for field, x in loaded if field == "problem"]
    measured = {row_name(x): x for field, x in loaded if field == "estimator"}
    for name, estimator in measured.items():
        if "episodes" not in combination_of(estimator).facts.collect:
            raise ValueError(
                f"estimators: {name} is for windows, and complete episodes are measured"
            )
    return Contenders(
        problems={problem.name: problem for problem in entered},
        estimators=measured,
        own=[(field, x) for field, x in loaded if not isinstance(x, str)],
        changed=changed,
    )


def changed_parts(
    out: Path, given: Sequence[Part], *, allow_changed_code: bool = False
) -> list[Part]:
    """The fields and names of the parts for which a folder holds results of other code.

    Args:
        out: the folder.
        given: the parts; what is not a file is not compared.
        allow_changed_code: the code may differ.

    Raises:
        ValueError: a part has other code although it may not, or the folder's record is corrupt.
    """
    recorded = {(entry["field"], entry["name"]): entry for entry in _recorded(out)}
    changed = []
    for field, part in given:
        entry = recorded.get((field, row_name(part)))
        if entry is not None and code.is_changed(
            out, field, entry, part, allow_changed_code=allow_changed_code
        ):
            changed.append((field, row_name(part)))
    return changed


def record(out: Path, own: Sequence[Part]) -> None:
    """Adds the user's parts to a folder's records."""
    if not own and not _recorded(out):
        return
    # only the current networks and optimizer, with which all its policies are trained
    stored = [entry for entry in _recorded(out) if entry["field"] not in TRAINING_PARTS]
    entries = {(entry["field"], entry["name"]): entry for entry in stored}
    for entry in code.record_list(own):
        entries[entry["field"], entry["name"]] = entry
    code.copy_texts(out, own)
    folders.write_json(out / "parts.json", list(entries.values()))


def _recorded(out: Path) -> list[dict[str, Any]]:
    """The entries of parts.json; [] for a folder without custom parts."""
    path = out / "parts.json"
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = folders.read_json(path, code.LIST_JSON)
    return entries


def _check_training_parts(out: Path, given: Sequence[Part]) -> None:
    """Raises ValueError if a folder holds policies, or their results, that were trained with
    others.
    """
    if not ((out / "policies").exists() or (out / "quality.csv").exists()):
        return
    recorded = {entry["field"]: entry for entry in _recorded(out)}
    parts = dict(given)
    for field in TRAINING_PARTS:
        if field in parts and field not in recorded:
            raise ValueError(
                f"{out} holds policies that were trained without {field} "
                f"{row_name(parts[field])!r}: leave {field} out, or give another folder, --out"
            )
        if field in recorded and field not in parts:
            entry = recorded[field]
            raise ValueError(
                f"{out} holds policies that were trained with {field} {entry['name']!r}: give it, "
                f"--{field} {entry['file']}:{entry['name']}, or another folder, --out"
            )
        if field in recorded and row_name(parts[field]) != recorded[field]["name"]:
            raise ValueError(
                f"{out} holds policies that were trained with {field} "
                f"{recorded[field]['name']!r}, got {row_name(parts[field])!r}: give another "
                "folder, --out"
            )


def _loaded(field: str, part: Any) -> Any:
    """The name of a listed part, or a custom object. Raises ValueError for another
    kind.
    """
    if combinations.is_combination(part):
        return part
    if isinstance(part, str) and not own_files.is_reference(part):
        return part
    if field == "estimator" and isinstance(part, str):
        return family.find(part)
    kind = "env" if field == "problem" else field
    loaded = own_files.load(part, kind) if own_files.is_reference(part) else part
    check_part(kind, loaded)
    return loaded
