"""The one base class of errors that a user can mend, and how commands end on them."""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO


class UserError(Exception):
    """A problem that the user can mend: the text says what is wrong, what is accepted, what to do.

    Commands and scripts print it without a traceback.
    """


class DataError(UserError):
    """A data folder that is not as it should be; says where and what to do."""


class _Unbreakable(io.TextIOBase):
    """Standard output that ignores a closed pipe, so that the work is not lost."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return len(text)

    def isatty(self) -> bool:
        """Say what the stream says."""
        return self.stream.isatty()


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command's ``main`` so that errors and Ctrl-C end it with one message and exit code 1.

    A closed output pipe (``command | head``) does not stop its work, and a terminal that lacks a
    letter shows another in its place.
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
