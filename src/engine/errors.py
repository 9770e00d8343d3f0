"""The two ways a command ends early. Messages are one sentence: the fact, the rule, the remedy."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, without the pages that some append; empty where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


class ZooError(Exception):
    """Something went wrong that the user can act on; the command prints the message and exits with `status`."""

    status = 1


class UsageError(ZooError):
    """The command line or the configuration is wrong; nothing was started."""

    status = 2
