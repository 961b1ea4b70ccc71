"""What an audit found: a row for each method and test, and what it means in words."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vislens_interp.files import recover, write_folder, write_text
from vislens_interp.report.render import render
from vislens_interp.results.result import json_values, versions
from vislens_interp.schema import check_schema, read_document

State = Literal["passed", "failed", "not run"]
Ends = tuple[float, float, float]
STATES: tuple[State, ...] = ("failed", "passed", "not run")
KIND, FORMAT_VERSION = "vislens_interp audit", 1
FILES = ("audit.html", "audit.json")
_TEXTS, _NUMBERS = ("method", "test", "meaning"), ("value", "low", "high", "bar")
SCHEMA = {
    "format_version": int,
    "unit": str,
    "layer": str,
    "model": str,
    "rows": [
        {"state": frozenset(STATES), **dict.fromkeys(_TEXTS, str), **dict.fromkeys(_NUMBERS, (float, None))},
    ],
    "settings": {str: object},
}


@dataclass(frozen=True)
class Row:
    """One test of one method's pictures.

    Args:
        method, test: Their names.
        meaning: A sentence that says what came out, or why the test was not run.
        state: ``"passed"`` where the value exceeds ``bar`` and the whole interval lies above chance.
        value, low, high: What was measured, and its 95 % interval; None where the test was not run.
        bar: What has to be exceeded: chance, or what a control reaches.
    """

    method: str
    test: str
    meaning: str
    state: State = "not run"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bar: float | None = None

    @classmethod
    def of(cls, method: str, test: str, meaning: str, ends: Ends, chance: float, control: float | None = None) -> "Row":
        """A test that was run: passed if the interval lies above chance, and the value above the control's, if any."""
        value, low, high = ends
        bar = chance if control is None else max(chance, control)
        state: State = "passed" if low > chance and value > bar else "failed"
        if control is not None and value >= bar >= 1:  # nothing can be above that, so that the test tells nothing
            state = "not run"
        return cls(method, test, meaning, state, value, low, high, bar)

    @property
    def number(self) -> str:
        """The value with its interval, or nothing."""
        if self.value is None:
            return ""
        return f"{self.value:.2f}" + ("" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]")


@dataclass(frozen=True, eq=False)
class AuditResult:
    """The tests of one unit's pictures.

    Args:
        unit, layer, model: What the pictures are of.
        rows: A row for each method and test.
        pictures: Method to its preferred pictures (N, 3, S, S), for the page.
        settings: JSON values: images, judge, seed, seconds.
    """

    unit: str
    layer: str
    model: str
    rows: tuple[Row, ...]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Names of the audited methods."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def of(self, method: str) -> list[Row]:
        """The rows of a method; KeyError where it was not audited."""
        if method not in self.methods:
            raise KeyError(f"method {method!r} was not audited; expected one of {', '.join(self.methods)}.")
        return [row for row in self.rows if row.method == method]

    def verdict(self, method: str) -> str:
        """Which tests a method's pictures failed, passed, and which were not run: words, never one number."""
        named = {state: ", ".join(row.test for row in self.of(method) if row.state == state) for state in STATES}
        return "; ".join(f"{state}: {names}" for state, names in named.items() if names)

    @property
    def title(self) -> str:
        """Model, layer and unit in one line."""
        return f"{self.model}, {f'layer {self.layer}' if self.layer else 'output'}, unit {self.unit}"

    def __str__(self) -> str:
        lines = [f"audit of {self.title}", *(f"{one}: {self.verdict(one)}" for one in self.methods)]
        known = self.settings.get("operating point")
        return "\n".join([*lines, f"evidence: {known}"] if known else lines)

    def __repr__(self) -> str:
        return f"AuditResult({self.title!r}, {len(self.rows)} rows, methods={self.methods})"

    def html(self) -> str:
        """The page: failures first, then every row with its interval and its meaning."""
        rows = {one: sorted(self.of(one), key=lambda row: STATES.index(row.state)) for one in self.methods}
        return render("audit.html", title=self.title, audit=self, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON values."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in ("unit", "layer", "model")},
            "verdict": {one: self.verdict(one) for one in self.methods},
            "rows": [json_values(asdict(row), "row") for row in self.rows],
            "settings": json_values(self.settings, "settings"),
            "versions": versions(),
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``audit.html`` and ``audit.json``, both or none; ValueError where the folder holds anything else."""
        path = check_folder(folder)

        def fill(temporary: Path) -> None:
            write_text(temporary / "audit.html", self.html())
            write_text(temporary / "audit.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")

        return write_folder(path, fill)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "AuditResult":
        """Read what :meth:`save` wrote, but for the pictures, which are on its page alone.

        Raises:
            FileNotFoundError: The folder holds no audit.
            ValueError: It was written by something else or by a newer version, or a field is damaged.
        """
        path = Path(folder)
        if not path.exists():
            recover(path)
        content = read_document(path, "audit.json", KIND, FORMAT_VERSION, "AuditResult.save()")
        check_schema(content, SCHEMA, repr(str(path / "audit.json")))
        rows = tuple(Row(**{name: row[name] for name in ("state", *_TEXTS, *_NUMBERS)}) for row in content["rows"])
        return cls(content["unit"], content["layer"], content["model"], rows, settings=content["settings"])


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Raise ValueError for a folder that holds something other than an earlier audit."""
    path = Path(folder).resolve()
    if path.is_file():
        raise ValueError(f"folder={str(folder)!r} is a file; expected a folder. Name another one.")
    held = sorted(one.name for one in path.iterdir()) if path.is_dir() else []
    strange = [name for name in held if name not in FILES and not name.startswith(".")]
    if strange:
        raise ValueError(
            f"folder={str(folder)!r} holds {strange[0]!r}, not written by an earlier audit; expected a new or empty "
            "folder, or an earlier audit, which is replaced. Name another one."
        )
    return path
