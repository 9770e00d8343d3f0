"""The two ways a command ends early. Messages are one sentence: the fact, the rule, the remedy."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable


def first_line(error: BaseException) -> str:
    """What another library's exception says, without the pages that some append; empty where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


class ZooError(Exception):
    """Something went wrong that the user can act on; the command prints the message and exits with `status`."""

    status = 1


class UsageError(ZooError):
    """The command line or the configuration is wrong; nothing was started."""

    status = 2


def reports_errors(main: Callable[..., int]) -> Callable[..., int]:
    """A program's main that ends with one line and the status of a ZooError where the work raises one."""

    @functools.wraps(main)
    def reporting(*arguments: object) -> int:
        try:
            return main(*arguments)
        except ZooError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.status

    return reporting
