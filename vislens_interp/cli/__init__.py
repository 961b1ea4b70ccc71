"""``vislens``: the library from a shell. Progress and warnings go to stderr, results to stdout."""

import os
import sys
import traceback
import warnings

from vislens_interp.streams import Stopped, drop_stdout, say, stopping_cleanly, usable_streams

_EXPECTED = (ValueError, KeyError, TypeError, OSError, MemoryError)
"""What our own checks raise, and what the system does: one line says it all."""


def main(argv: list[str] | None = None) -> int:
    """Run ``vislens``.

    Args:
        argv: Arguments after the command's name; None takes those of the process.

    Returns:
        Exit code: 0 success, 1 an error that was said in one line or output that nobody reads, 2 wrong usage, 129 hung
        up, 130 interrupted, 143 terminated.
    """
    # Where other programs keep the cores busy, threads that wait in a loop take their own partners' time: an edit took
    # 4.0 s beside two busy processes, 2.5 s with this limit, 1.2 s alone with and without. OpenMP reads it when loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    with usable_streams(), stopping_cleanly(), warnings.catch_warnings():
        try:
            from vislens_interp.cli.arguments import build_parser

            args = build_parser().parse_args(argv)
        except SystemExit as stop:  # argparse's way of ending after --help (0) and wrong usage (2)
            code = stop.code if isinstance(stop.code, int) else 2
            return code if _flushed() else 1
        except KeyboardInterrupt as stop:
            return _stopped(stop)
        warnings.showwarning = _show_warning
        if args.quiet:
            warnings.simplefilter("ignore")
        try:
            from vislens_interp.cli import verbs

            getattr(verbs, args.command)(args)
            sys.stdout.flush()  # here, where a closed pipe can still be caught
        except KeyboardInterrupt as stop:
            return _stopped(stop)
        except BrokenPipeError:  # the reader, such as `head`, has enough
            drop_stdout()
            return 1
        except _EXPECTED as error:
            if args.debug:
                traceback.print_exc()
            say(f"error: {_one_line(error)}")
            _flushed()
            return 1
    return 0


def _stopped(stop: KeyboardInterrupt) -> int:
    word, code = (stop.word, stop.code) if isinstance(stop, Stopped) else ("interrupted", 130)
    say(word)
    return code


def _flushed() -> bool:
    """Whether stdout took everything."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_stdout()
        return False
    return True


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {' '.join(str(message).split())}")


def _one_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
