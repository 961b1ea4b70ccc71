"""Names of pictures as people may read them, and tables as CSV in one dialect whose cells no spreadsheet runs."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

Value = str | float | int | None
_NOT_SHOWN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_ESCAPED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\]")
_FORMULA = ("=", "+", "-", "@", "'", "＝", "＋", "－", "＠")


class Dialect(csv.Dialect):
    """UTF-8, commas, double quotes where needed, a line feed after each row; a cell never holds a line break."""

    delimiter, quotechar, doublequote, lineterminator = ",", '"', True, "\n"
    quoting, strict = csv.QUOTE_MINIMAL, True


def display_text(text: str) -> str:
    r"""Text for a page or a figure: control characters, and bytes of a name that are not UTF-8, become "�".

    >>> display_text("cat\x07\udcff.png")
    'cat��.png'
    """
    return _NOT_SHOWN.sub("\ufffd", text)


def display_name(name: str, length: int = 28) -> str:
    """The end of a file's name in one line of at most ``length`` characters; the end is what tells files apart.

    >>> display_name("animals/a very long name of a picture of a cat.png")
    '…e of a picture of a cat.png'
    """
    return shortened(name.rsplit("/", 1)[-1], length)


def shortened(text: str, length: int) -> str:
    """The end of a text, in one line of at most ``length`` characters."""
    text = display_text(text).replace("\n", "\ufffd")
    return text if len(text) <= length else "…" + text[1 - length :]


def cell(text: str) -> str:
    r"""Text as a cell: control characters escaped, and an apostrophe before what a spreadsheet would run.

    >>> cell("=1+1"), cell("two\nlines"), from_cell(cell("=1+1"))
    ("'=1+1", 'two\\u000alines', '=1+1')
    """
    text = _ESCAPED.sub(lambda found: "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}", text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def from_cell(text: str) -> str:
    """The text of which :func:`cell` made this."""
    return re.sub(
        r"\\(?:u([0-9a-f]{4})|\\)", lambda found: chr(int(found[1], 16)) if found[1] else "\\", text.removeprefix("'")
    )


def csv_text(
    columns: Sequence[str], rows: Iterable[Sequence[Value]], digits: int | None = None, delimiter: str = ","
) -> str:
    """A table as CSV in :class:`Dialect`.

    Args:
        columns: The first line.
        rows: Text, which is made safe by :func:`cell`; numbers; None for an empty cell.
        digits: Significant digits of a float; None writes it in full.
        delimiter: Between cells: a tab where others expect one.
    """

    def written(value: Value) -> str:
        if isinstance(value, float) and digits is not None:
            return f"{value:.{digits}g}"
        return "" if value is None else cell(value) if isinstance(value, str) else str(value)

    text = io.StringIO()
    csv.writer(text, Dialect, delimiter=delimiter).writerows(
        [columns, *([written(value) for value in row] for row in rows)]
    )
    return text.getvalue()


def read_given(path: Path, argument: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a user's table: tabs between cells where its name ends in ``.tsv`` or ``.tab``.

    Args:
        path: The file.
        argument: What the caller calls it, for messages.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is not in UTF-8, has fewer than two columns, no row, or a row of another length.
    """
    named = f"{argument}={str(path)!r}"
    if not path.is_file():
        raise FileNotFoundError(f"{named}: no such file; expected a CSV or TSV with a header.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, delimiter="\t" if path.suffix in (".tsv", ".tab") else ",")
            head, *lines = [row for row in rows if row] or [[]]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{named} is not in UTF-8 (byte {error.object[error.start]:#04x} at place {error.start});"
            " expected a CSV or TSV in UTF-8. Save it in that encoding, such as with pandas."
            "read_csv(path, encoding='latin-1').to_csv(path, index=False)."
        ) from None
    except csv.Error as error:
        raise ValueError(f"{named} is no table ({error}); expected a CSV or TSV with a header.") from None
    if len(head) < 2 or not lines:
        raise ValueError(
            f"{named} holds {len(lines)} rows below {len(head)} columns; expected a header and at least one row, of "
            "two columns or more. A file with tabs has to end in .tsv; for semicolons pass it through "
            "pandas.read_csv(path, sep=';', decimal=',').to_csv(path, index=False)."
        )
    for number, row in enumerate(lines, 2):
        if len(row) != len(head):
            raise ValueError(
                f"{named}, row {number}: {len(row)} cells; expected {len(head)}, as in its header. Quote cells that "
                "hold the separator."
            )
    return [name.strip() for name in head], lines


def read_csv(path: Path, columns: Sequence[str], *, escaped: bool = True, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a table by column.

    Args:
        path: The file.
        columns: What it has to have.
        escaped: Whether :func:`csv_text` wrote it; tables of 0.1.0 hold names as they are.
        delimiter: Between cells.

    Raises:
        ValueError: It is no such table; the message names it.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, Dialect if escaped else "excel", delimiter=delimiter)
            head, *rows = list(reader) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no table in UTF-8 ({error}). Restore a copy, or make it again.") from error
    for line, row in enumerate([head, *rows], 1):
        if len(row) != len(columns) or (line == 1 and row != list(columns)):
            raise ValueError(
                f"{str(path)!r} holds {row} in line {line}; expected {list(columns)}, a cell each. Restore a copy, or"
                " make it again."
            )
    return [dict(zip(columns, map(from_cell, row) if escaped else row, strict=True)) for row in rows]
