"""From each notebook's text, NAME.py, its NAME.ipynb: no outputs, and the same bytes for the same
text.

jupytext draws the ids of cells at random; here they are digests of what stands in the cell.
"""

import hashlib
import json
from pathlib import Path

import jupytext

FOLDER = Path(__file__).parents[1]


def notebook(path: Path) -> str:
    """The text of the .ipynb of a .py of cells."""
    found = jupytext.read(path, fmt="py:percent")
    taken: set[str] = set()
    for cell in found.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()
        cell.id = next(digest[i : i + 8] for i in range(56) if digest[i : i + 8] not in taken)
        taken.add(cell.id)
    found.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    found.metadata["language_info"] = {"name": "python"}
    return json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Writes the .ipynb of every .py beside it."""
    for path in sorted(FOLDER.glob("*.py")):
        path.with_suffix(".ipynb").write_text(notebook(path), encoding="utf-8")
        print(path.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()
