"""How a command fails."""


class UserError(ValueError):
    """What the user gave cannot be used; the message says what, where, the rule and what was received.

    Attributes:
        status: the command's exit status.
    """

    status = 1


class UsageError(UserError):
    """What stands on the command line cannot be used."""

    status = 2


class Interrupted(Exception):
    """The command was asked to stop (SIGTERM), and has saved what it needs to go on. Exit status 143: start again."""

    status = 143
