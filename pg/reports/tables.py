"""Tables: parquet and CSV, read within bounds and written atomically; Markdown and aligned text.

The only reader and writer of tables. Imports neither jax nor gymnax.
"""

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from pg import numerals
from pg.inputs import shown
from pg.reports.statistics import Estimate
from pg.runs import files, memory

_CELL = 8  # bytes of a number
# bytes of an uncompressed value in a parquet file, on average, strings included
_LONGEST_CELL = 256
_CELLS_BESIDE = 1000  # allowance for page headers and dictionaries, in values
Row = TypeVar("Row", bound=Any)  # a NamedTuple


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """A parquet file of columns of one length."""
    import pyarrow
    import pyarrow.parquet as parquet

    files.replace(path, lambda file: parquet.write_table(pyarrow.table(dict(columns)), file))


def read_parquet(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    most_rows: int | None = None,
    texts: bool = False,
) -> dict[str, np.ndarray]:
    """The columns of a parquet file of numbers.

    Args:
        path: the file.
        columns: the columns to read; default: all.
        most_rows: the largest possible number; default: any that fits into memory.
        texts: columns may also be strings.

    Raises:
        files.UnreadableError: it cannot be read at present, for lack of memory or a failing disk;
            it may be valid. ValueError: the file is corrupt, or would unpack to something else,
            which is checked before any column is read.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    with files.opened(path) as file:
        try:
            table = parquet.ParquetFile(file)
            if problem := _too_much(table, most_rows, texts=texts):
                raise ValueError(problem)
            _check_room(table)
            odd = sorted(set(columns or ()) - set(table.schema_arrow.names))
            if odd:
                raise ValueError(f"it has no column {odd[0]}")
            words = [field.name for field in table.schema_arrow if _is_text(field.type)]
            # a long string that recurs is stored once
            table = parquet.ParquetFile(file, read_dictionary=words)
            found = table.read(None if columns is None else list(columns), use_threads=False)
            return {name: _values(found[name]) for name in found.column_names}
        except (pyarrow.ArrowException, OSError, MemoryError, ValueError) as error:
            first = " ".join(str(error).split())
            # System errors have a number; an OSError without one is arrow's way to report a corrupt
            # file.
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise files.UnreadableError(f"{path} cannot be read now: {first}") from None
            raise ValueError(f"{path} is corrupt, remove it: {first}") from None


def _too_much(table: Any, most_rows: int | None, *, texts: bool) -> str:
    """The reason not to read a parquet file, by its metadata; "" if there is none."""
    from pyarrow import types as kinds

    about, names = table.metadata, table.schema_arrow.names
    rows = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    if about.num_rows != sum(rows) or min(rows, default=0) < 0:
        return "its sizes are inconsistent"
    if len(set(names)) < len(names) or about.num_columns != len(names):
        return "its columns have duplicate names"
    if most_rows is not None and about.num_rows > most_rows:
        there = numerals.counted(about.num_rows, "row")
        return f"it has {there}, where at most {most_rows:,} can have been written"
    plain: list[Callable[[Any], bool]] = [kinds.is_integer, kinds.is_floating, kinds.is_boolean]
    plain += [_is_text] if texts else []
    for name, kind in zip(names, table.schema_arrow.types, strict=True):
        if not any(is_plain(kind) for is_plain in plain):
            return f"its column {shown(name)} is of type {shown(str(kind))}"
    packed = _num_bytes(about)
    if packed < 0:
        return "its size is negative"
    if packed > _LONGEST_CELL * (about.num_rows + _CELLS_BESIDE) * len(names):
        return (
            f"it would unpack to {memory.readable(packed)}, for "
            f"{numerals.counted(about.num_rows, 'row')} of "
            f"{numerals.counted(len(names), 'column')}"
        )
    return ""


def _check_room(table: Any) -> None:
    """Raises MemoryError for a parquet file that may be valid but is larger than the free
    memory.
    """
    about = table.metadata
    size = max(_num_bytes(about), _CELL * about.num_rows * about.num_columns)
    if size > (free := memory.free()):
        raise MemoryError(
            f"it would unpack to {memory.readable(size)}, where {memory.readable(free)} are free"
        )


def _num_bytes(about: Any) -> int:
    """Uncompressed bytes of a parquet file's values, by its metadata."""
    return sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))


def _is_text(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _values(column: Any) -> np.ndarray:
    """An arrow column, with each distinct string once in memory."""
    import pyarrow

    if not pyarrow.types.is_dictionary(column.type):
        return column.to_numpy()
    parts = []
    for part in column.chunks:
        texts = np.array([*part.dictionary.to_pylist(), None], object)
        parts.append(texts[part.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.array([], object)


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    files.replace(path, lambda file: file.write(text.getvalue().encode()))


def write_rows(
    path: Path, kind: type[Row], rows: Iterable[Row], *, digits: int | None = None
) -> None:
    """NamedTuples of one kind as CSV, which `read_csv` reads.

    Args:
        path: the file; its folder is made.
        kind: of the rows.
        rows: the lines of the table.
        digits: significant digits of a float; default: all.
    """
    cells = [flat_row(row) for row in rows]
    if digits is not None:
        cells = [[_rounded(cell, digits) for cell in line] for line in cells]
    files.make_folder(path.parent)
    write_csv(path, list(flat_columns(kind)), cells)


def _rounded(cell: Any, digits: int) -> Any:
    return f"{cell:.{digits}g}" if isinstance(cell, float) else cell


def read_csv(
    path: Path, kind: type[Row], former: Mapping[str, str] = MappingProxyType({})
) -> list[Row]:
    """The rows of a table, each a NamedTuple.

    Args:
        path: the file.
        kind: of the rows, with fields that are texts, whole numbers, floats, or estimates, which
            take three columns each (`flat_columns`). The last columns may be missing if their
            fields have defaults, as in older files.
        former: names of columns in older files, and their current names.

    Raises:
        ValueError: the file cannot be read, or is another table.
    """
    columns = flat_columns(kind)
    types = list(columns.values())
    text = files.read_bytes(path)
    try:
        header, *lines = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
        needed = [name for name in columns if name not in kind._field_defaults]
        if [former.get(name, name) for name in header] not in (list(columns), needed):
            raise ValueError
        types = types[: len(header)]
        rows = []
        for line in lines:
            cells = [_cell(t, x) for t, x in zip(types, line, strict=True)]
            rows.append(row_of_cells(kind, cells))
        return rows
    except (csv.Error, ValueError):
        expected = ", ".join(columns)
        raise ValueError(
            f"{path} must have the columns {expected}: it is not a table of results"
        ) from None


def flat_columns(kind: type) -> dict[str, type]:
    """Names and types of the columns of a table whose rows are NamedTuples of a kind.

    An `Estimate` NAME takes three columns, NAME, NAME_low and NAME_high.
    """
    columns: dict[str, type] = {}
    for name, field in kind.__annotations__.items():
        if field is Estimate:
            columns |= {name: float, f"{name}_low": float, f"{name}_high": float}
        else:
            columns[name] = field
    return columns


def flat_row(row: Any) -> list[Any]:
    """The cells of a NamedTuple in the order of `flat_columns`."""
    cells: list[Any] = []
    for value in row:
        cells += value if isinstance(value, Estimate) else [value]
    return cells


def row_of_cells(kind: type[Row], cells: Sequence[Any]) -> Row:
    """The NamedTuple of a kind that `flat_row` gave these cells of."""
    rest = iter(cells)
    fields = {}
    for name, field in kind.__annotations__.items():
        of_field = list(itertools.islice(rest, 3 if field is Estimate else 1))
        if not of_field:  # for a file that is older than the field
            break
        fields[name] = Estimate(*of_field) if field is Estimate else of_field[0]
    return kind(**fields)


def _cell(kind: type, text: str) -> Any:
    """The value of a cell. Raises ValueError for something else."""
    if kind is int and (len(text) > 20 or abs(int(text)) >= 2**63):
        raise ValueError(text)
    return kind(text)


def printed(columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Prints a table in Markdown, each row as soon as it is computed. Returns its text.

    Args:
        columns: The heads of the cells.
        rows: The name of each row, and its cells.
    """
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    print(*lines, sep="\n", flush=True)
    for name, cells in rows:
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned to be readable as text; the first row is its head."""
    widths = _widths(rows)
    head, *body = rows
    rule = ["-" * width for width in widths]
    lines = []
    for row in (head, rule, *body):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plain(rows: Sequence[Sequence[str]]) -> str:
    """A table as text, the first column aligned on the left and the others on the right; the first
    row is its head.
    """
    widths = _widths(rows)
    lines = []
    for name, *values in rows:
        cells = [name.ljust(widths[0])]
        cells += [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The characters of the longest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def insert(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replaces the text between the two marks of a file. Raises ValueError unless each occurs
    once.
    """
    check_marks(path, marks)
    before, rest = path.read_text(encoding="utf-8").split(marks[0])
    whole = "\n".join([before + marks[0], text, marks[1] + rest.split(marks[1])[1]])
    files.replace(path, lambda file: file.write(whole.encode()))


def check_marks(path: Path, marks: tuple[str, str]) -> None:
    """Raises ValueError unless a file has both marks, once each and in order."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if [text.count(mark) for mark in marks] != [1, 1] or text.index(marks[0]) > text.index(
        marks[1]
    ):
        raise ValueError(f"{path} needs one line {marks[0]} and below it one line {marks[1]}")
