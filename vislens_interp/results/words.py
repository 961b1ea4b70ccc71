"""Words for an edit: what rises and what falls along it, each beside what shuffled landscapes say."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from vislens_interp.schema import Spec
from vislens_interp.tables import display_text

_WORD: Spec = {"word": str, "rank": int, "score": float, "margin": float}
WORDS: dict[str, Spec] = {"rising": [_WORD], "falling": [_WORD], "source": str, "reason": str}
"""What :meth:`Words.to_dict` writes."""


@dataclass(frozen=True)
class Word:
    """One word of an edit.

    Args:
        word: From the vocabulary of the read-out.
        rank: Its place among all words of the vocabulary, 1 the first: by rise, or by fall.
        score: Correlation, -1 to 1, of the word's read-out with the direction of the edit over reference images.
        margin: How far the score's size lies above the strongest word's of 95 % of the shuffled landscapes.
    """

    word: str
    rank: int
    score: float
    margin: float

    def __str__(self) -> str:
        return f"{self.word} {self.score:+.2f}"


@dataclass(frozen=True)
class Words:
    """The words that rise and those that fall along an edit, the strongest first.

    Args:
        rising, falling: Words that beat those of the shuffled landscapes.
        source: Which read-out they come from.
        reason: Why there are none; empty where there are some.
    """

    rising: list[Word] = field(default_factory=list)
    falling: list[Word] = field(default_factory=list)
    source: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.rising or self.falling)

    def __iter__(self) -> Iterator[Word]:
        return iter([*self.rising, *self.falling])

    def __str__(self) -> str:
        if not self:
            return f"no words ({self.reason})"
        parts = ((name, ", ".join(map(str, row))) for name, row in (("rises", self.rising), ("falls", self.falling)))
        return "; ".join(f"{name}: {row}" for name, row in parts if row)

    def _repr_html_(self) -> str:
        return f"<p>{escape(display_text(str(self)))}</p>"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "Words":
        """What :meth:`to_dict` gave, checked against :data:`WORDS` before."""
        rows = {
            key: [Word(**{name: one[name] for name in _WORD}) for one in kept[key]] for key in ("rising", "falling")
        }
        return cls(**rows, source=kept["source"], reason=kept["reason"])
