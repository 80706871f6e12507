"""The one way a command of this project starts, reports an error, and exits."""

import gc
import re
import shlex
import sys
from collections.abc import Callable

from absl import app, flags, logging

from dlen_cam2.utils import console
from dlen_cam2.utils.errors import Interrupted, UserError

SERVED = "served/ranker"  # where the next step of a command puts a SavedModel, version after version


def run(main: Callable[[], None], define_flags: Callable[[], None], positional: str = "") -> None:
    """Define this command's flags, parse them and call `main()`; the value of `positional` may be given without a name.

    Flags are defined when a module runs as a command rather than when it is imported, so that modules can be imported
    together.

    Every command has the flag --quiet, see `dlen_cam2.utils.console`.

    Errors print one message on standard error without a traceback. The exit status is 0: done; 1: the input cannot be
    used, the disk is full, or memory ran out; 2: a command-line flag is wrong; 3: training diverged; 138: another
    process of the cluster is gone; 143: stopped by SIGTERM with the state saved. After 138 and 143, start the command
    again. Any other error is a defect of ours and keeps its traceback.
    """

    # What was imported stays, and to look at it again and again is a fifth of the time that building graphs takes.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    before = set(flags.FLAGS)
    _defined(define_flags)
    define_common_flags()
    for name in set(flags.FLAGS) - before:  # or --help would leave out those that another module defines
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def body(argv: list[str]) -> None:
        if positional and len(argv) > 1 and flags.FLAGS[positional].value is None:
            flags.FLAGS[positional].parse(argv.pop(1))
        if len(argv) > 1:
            raise app.UsageError(f"Unknown arguments. Received: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)
        console.quiet(flags.FLAGS.quiet)
        try:
            if positional and flags.FLAGS[positional].value is None:
                raise UserError(f"{positional} must be given, alone or as --{positional}. Received: nothing.")
            main()
        except (UserError, Interrupted, OSError) as error:  # an OSError is the machine's: the disk is full, …
            sys.stdout.flush()
            print(f"error: {error}" if not isinstance(error, Interrupted) else f"stopped: {error}", file=sys.stderr)
            sys.exit(getattr(error, "status", 1))

    app.run(body, flags_parser=_parse)


def define_common_flags() -> None:
    """Define the flags that every command has."""
    flags.DEFINE_bool("quiet", False, "Show only warnings and errors: no progress, no tables.")


def line(command: str, **given: object) -> str:
    """The command line `dlen_cam2 COMMAND --flag=value …`, as typed; flags without a value (None) are left out."""
    flags_given = (f"--{name}={value}" for name, value in given.items() if value is not None)
    return shlex.join(["dlen_cam2", command, *flags_given])


def _defined(define_flags: Callable[[], None]) -> None:
    """Define the flags. Some of them already read the command line, which may raise an error."""
    try:
        define_flags()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # absl says of a flag that is required: "flag --x=None: Flag --x must have a value other than None."
        print("error:", re.sub(r"flag (--\w+)=None: .*", r"\1 must be given.", str(error)), file=sys.stderr)
        print(f"Pass --helpshort to {_name(argv[0])} to see its flags.", file=sys.stderr)
        sys.exit(2)


def _name(path: str) -> str:
    """The name with which this command is started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return path
    package, _, command = spec.name.rpartition(".")
    return f"dlen_cam2 {command}" if package == "dlen_cam2.cli" else f"python -m {spec.name}"
