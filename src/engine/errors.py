"""The two ways a command ends early. Messages are one sentence: the fact, the rule, the remedy."""


class ZooError(Exception):
    """Something went wrong that the user can act on; the command prints the message and exits with `status`."""

    status = 1


class UsageError(ZooError):
    """The command line or the configuration is wrong; nothing was started."""

    status = 2
