"""The one base class of errors that a user can mend, and how commands end on them."""

import functools
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """A problem that the user can mend: the text says what is wrong, what is accepted, what to do.

    Commands and scripts print it without a traceback.
    """


class DataError(UserError):
    """A data folder that is not as it should be; says where and what to do."""


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command's ``main`` so that errors and Ctrl-C end it with one message and exit code 1.

    A closed output pipe (``command | head``) ends it quietly.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (UserError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit("stopped by Ctrl-C; run the same command again to continue") from None

    return wrapped
