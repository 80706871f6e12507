"""The errors with which a command fails."""


class UserError(ValueError):
    """The user's input cannot be used; the message says what, where, the rule and what was received.

    Attributes:
        status: the command's exit status.
    """

    status = 1


class UsageError(UserError):
    """The command line cannot be used."""

    status = 2


class Interrupted(Exception):
    """The command was asked to stop (SIGTERM) and saved its state. The exit status is 143: start it again to resume."""

    status = 143
