"""Where a command writes and how it ends: streams that are closed or know no α, and signals at any moment."""

import codecs
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import TextIO

_ENDS = {"SIGHUP": "hung up", "SIGINT": "interrupted", "SIGTERM": "terminated"}
_PLAIN = {"α": "alpha", "β": "beta", "γ": "gamma", "Δ": "change of ", "°": " degrees", "±": "+-", "×": "x", "·": "*"}
_PLAIN |= {"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "↑": "up", "↓": "down", "≥": ">=", "≤": "<=", "²": "2"}
_PLAIN |= {"“": '"', "”": '"', "‘": "'", "’": "'", "█": "#", "✗": "x"}


class Stopped(KeyboardInterrupt):
    """A signal came while something was being written, which has to be cleared away first."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.word, self.code = _ENDS[signal.Signals(number).name], 128 + number


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    """What an encoding cannot hold, in letters that it can: a summary in cp1252 or ASCII loses nothing."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = (_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode("ascii") for sign in signs)
    return "".join(plain), error.end


codecs.register_error("vislens_spelled_out", _spelled_out)


class _Lenient:
    """A stderr whose reader may go away: what is said then is lost, and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Inside, stdout and stderr are there, take every letter, and a closed stderr is no error."""
    before = sys.stdout, sys.stderr
    errors = [getattr(stream, "errors", None) for stream in before]
    opened = [open(os.devnull, "w", encoding="utf-8") if _is_closed(stream) else stream for stream in before]  # noqa: SIM115
    for stream in opened:
        _reconfigure(stream, "vislens_spelled_out")
    sys.stdout, sys.stderr = opened[0], _Lenient(opened[1])  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream, ours, how in zip(before, opened, errors, strict=True):
            with suppress(OSError, ValueError):
                if ours is not stream:
                    ours.close()
                else:
                    _reconfigure(stream, how)


def _reconfigure(stream: TextIO, errors: str | None) -> None:
    if isinstance(stream, io.TextIOWrapper):  # not every stream that takes the place of stdout has it
        stream.reconfigure(errors=errors)


def _is_closed(stream: TextIO | None) -> bool:
    return stream is None or getattr(stream, "closed", False)


def drop_stdout() -> None:
    """Let what stdout still holds go nowhere, so that the interpreter does not complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """One line of ``vislens`` on stderr."""
    print(f"vislens: {text}", file=sys.stderr, flush=True)


@contextmanager
def stopping_cleanly(line: str = "vislens: {}") -> Iterator[None]:
    """Inside, Ctrl-C, SIGTERM and SIGHUP end the process with one line, also while libraries are being imported.

    Where a file is being written the signal is an exception, so that nothing half-written stays; everywhere else the
    process ends on the spot, for an exception in a library's import may be swallowed or come out as another one.

    Args:
        line: What is said on stderr; ``{}`` is the word for what ended it.
    """
    before = {}
    with suppress(ValueError):  # not the main thread, which alone has handlers
        for name in _ENDS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                before[number] = signal.signal(number, partial(_stop, line))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(line: str, number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    files = sys.modules.get("vislens_interp.files")
    if files is not None and getattr(files, "is_writing", bool)():
        raise Stopped(number)
    stop = Stopped(number)
    with suppress(OSError):  # not by print, which may be at work already
        os.write(2, (line.format(stop.word) + "\n").encode())
    os._exit(stop.code)
