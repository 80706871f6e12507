"""`python -m dlen_cam2 COMMAND …`, and `dlen_cam2 COMMAND …` where the package is installed.

A command is a module of `dlen_cam2.cli`; the first line of its docstring says what it does.
"""

import ast
import difflib
import importlib.util
import pkgutil
import runpy
import sys

from dlen_cam2 import __version__, cli


def commands() -> dict[str, str]:
    """{command: what it does}, found without importing any of them, which would load TensorFlow for seconds."""
    found = {}
    for module in pkgutil.iter_modules(cli.__path__):
        spec = importlib.util.find_spec(f"{cli.__name__}.{module.name}")
        assert spec is not None and spec.origin is not None
        with open(spec.origin, encoding="utf-8") as file:
            found[module.name] = (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]
    return found


def main() -> None:
    """Run the command that the first argument names. The exit status is 2 if there is no such command."""
    known = commands()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        width = max(map(len, known))
        print("dlen_cam2 COMMAND [--flags]: multi-task ranking for feeds\n")
        print("\n".join(f"  {command:<{width}}  {what}" for command, what in known.items()))
        print("\nTo see a command's flags, run dlen_cam2 COMMAND --help. To write a data set, run python -m "
              "pipelines.<source>.")
    elif name == "--version":
        print(f"dlen_cam2 {__version__}")
    elif name in known:
        sys.argv[1:] = arguments
        runpy.run_module(f"{cli.__name__}.{name}", run_name="__main__", alter_sys=True)
    else:
        near = difflib.get_close_matches(name, known, 1)
        print(f"error: dlen_cam2 has no command {name!r}.{f' Did you mean {near[0]}?' if near else ''} "
              f"Known: {', '.join(known)}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
