"""The base class of errors that a user can fix, and the decorator of commands that prints them."""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO


class UserError(Exception):
    """Raised for a problem that the user can fix; commands print it without a traceback.

    The message says what is wrong, what is accepted, and what to do.
    """


class DataError(UserError):
    """Raised for a missing, damaged or unexpected data folder or file."""


class _Unbreakable(io.TextIOBase):
    """Standard output that ignores a closed pipe, so that the command's work is not lost."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        """Write and flush; discard all output once the pipe is closed."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)

    def isatty(self) -> bool:
        """Return whether the wrapped stream is a terminal."""
        return self.stream.isatty()


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command's ``main`` so that errors and Ctrl-C end it with one message and exit code 1.

    A closed output pipe (``command | head``) does not stop the command. Characters that the
    terminal's encoding does not have are replaced.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            with contextlib.redirect_stdout(_Unbreakable(sys.stdout)):
                main(*args, **kwargs)
        except (UserError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit("stopped by Ctrl-C; run the same command again to continue") from None

    return wrapped
