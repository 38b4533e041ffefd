"""Check and measure on an accelerator, in one command and within a time budget.

Every result is written to accelerator.json in --out as soon as it is known, the most important
first; started again with the same --out, it measures the missing ones. --report writes a page of
results, even if there are none.

The machine needs no network. The missing dependencies are named; bring them as wheels:

  python -m pip download --no-deps -d wheels NAME ...                            with a network
  python -m pip install --no-index --find-links wheels --no-deps NAME ...        on the machine
"""

import argparse
import importlib.util
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "speed"))

from device import driver, report

# Distributions by import name: those that rollouts, training and their checks import.
NEEDED = {
    **{name: name for name in ("jax", "flax", "optax", "chex", "gymnax", "numpy", "scipy")},
    **{name: name for name in ("jaxtyping", "matplotlib", "psutil", "safetensors", "tqdm", "tyro")},
    "lazy_loader": "lazy-loader",
    "pyarrow": "pyarrow",
    "six": "six",
    # which tyro and gymnax import
    "docstring_parser": "docstring-parser",
    "typeguard": "typeguard",
    "gymnasium": "gymnasium",
    "farama_notifications": "farama-notifications",
}


def missing() -> list[str]:
    """The distributions that this interpreter lacks."""
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def parser() -> argparse.ArgumentParser:
    """The flags; `argparse`, as the parser of the other commands may be missing."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=Path("results/accelerator"), metavar="DIR")
    made.add_argument("--minutes", type=float, default=9.0, help="budget of time (default: 9)")
    made.add_argument(
        "--smoke",
        action="store_true",
        help="tiny programs, also on a CPU, to check that everything runs",
    )
    made.add_argument("--report", type=Path, metavar="FILE.md", help="write the page, and exit")
    made.add_argument(
        "--from", dest="source", type=Path, metavar="FILE.json", help="results of the page"
    )
    return made


def main() -> int:
    """Returns the exit code: 1 where a row failed or a check did not hold, 2 for a mistake."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the measuring process
    made = parser()
    given = made.parse_args()
    if not 0 < given.minutes < math.inf:
        made.error(f"minutes must be above 0, got {given.minutes}")
    if given.source is not None and given.report is None:
        made.error("--from needs --report FILE.md")
    try:
        if given.report is not None:
            results = None if given.source is None else driver.read(given.source)
            given.report.write_text(report.page(results), encoding="utf-8")
            return 0
        if absent := missing():
            made.error(f"bring these as wheels, as --help says: {' '.join(absent)}")
        if given.smoke:  # whose time is the compiler's
            os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        results = driver.run(given.out, minutes=given.minutes, smoke=given.smoke)
    except (ValueError, OSError) as error:
        made.error(str(error))
    failed = [row for rows in results["sections"].values() for row in rows.values() if _bad(row)]
    if results["skipped"]:
        print(f"no time for {len(results['skipped'])} rows: {'; '.join(results['skipped'])}")
    print(f"{len(failed)} rows failed{os.linesep}{given.out / driver.FILE}")
    return 1 if failed else 0


def _bad(row: dict[str, Any]) -> bool:
    """True for a row that failed, or whose check did not hold."""
    return "error" in row or row["result"].get("verdict", "within") != "within"


if __name__ == "__main__":
    raise SystemExit(main())
