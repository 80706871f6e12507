"""Read experiment files, with changes from the command line (`--config=FILE --config.key=value`), and write them.

`--config=own/mmoe` names an experiment that is installed with this package: `configs/own/mmoe.py`.
"""

import ast
import dataclasses
import functools
import importlib.util
import json
import pathlib
import re
import sys
from typing import Any

from absl import flags

from dlen_cam2.config import Config, check, replaced
from dlen_cam2.parts import Part
from dlen_cam2.utils.errors import UsageError, UserError

CONFIGS = pathlib.Path(__file__).with_name("configs")
_MODULE = "experiment"  # the name that an experiment file has while it is run
_WANTED = "--config must be a Python file whose get_config() returns a Config, or the name of an installed experiment."
_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=(.*))?", re.DOTALL)
# What the command line changes, in its order.
_changes: list[tuple[str, str]] = []
# The whole of it, as it was typed.
_typed: list[str] = []


@functools.cache  # a command asks several times, and each reads all of these files
def installed() -> dict[str, str]:
    """{name: path} of the experiments that are installed with this package, such as `own/mmoe`."""
    return {
        path.relative_to(CONFIGS).with_suffix("").as_posix(): str(path)
        for path in sorted(CONFIGS.rglob("*.py")) if "\ndef get_config()" in path.read_text(encoding="utf-8")
    }


class _Experiment(flags.ArgumentParser[str]):
    """Turns the name of an installed experiment into its path, so that every reader of the flag sees a path.

    A name has no extension and a Python file has one, so the two cannot be confused. `read` refuses a value that is
    neither.
    """

    def parse(self, argument: str) -> str:
        return installed().get(argument, argument)


def read(path: str) -> Any:
    """Run the Python file `path` and return the configuration from its `get_config()`.

    Raises:
        UsageError: the file does not exist, cannot be run, or has no `get_config`.
    """
    if not path.endswith(".py") or not pathlib.Path(path).is_file():
        raise UsageError(f"{_WANTED} Received: {path!r}. Known: {', '.join(installed())}.")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None and spec.loader is not None  # a Python file has both
    module = importlib.util.module_from_spec(spec)
    here = str(pathlib.Path(path).resolve().parent)
    sys.path.append(here)  # so that it may import what lies beside it
    try:
        spec.loader.exec_module(module)
        return module.get_config()
    except UserError as error:
        raise UsageError(f"--config: {path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"--config: {path} cannot be used. Received: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def value_of(text: str) -> Any:
    """Parse a value from the command line: a Python literal, "true", "false", names with commas, or the text itself.

    >>> value_of("0.5"), value_of("64,32"), value_of("true"), value_of("ple"), value_of("click,like")
    (0.5, (64, 32), True, 'ple', ('click', 'like'))
    """
    if text in ("true", "false"):
        return text == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        names = text.rstrip(",").split(",")
        return tuple(names) if "," in text and all(map(str.isidentifier, names)) else text
    return tuple(value) if isinstance(value, list) else value


def define(text: str) -> None:
    """Define the flag `--config`, the path of an experiment file, and `--config.key=value`, which changes its result.

    The changes are applied in order: `--config.model.trunk=ple --config.model.trunk.levels=3` chooses a trunk and then
    its number of levels. `get` returns the result.
    """
    flags.DEFINE(
        _Experiment(), "config", None,
        f"{text} An installed experiment may be given by its name: {', '.join(installed())}.",
        serializer=flags.ArgumentSerializer[str](),
    )
    _changes.clear()
    _typed[:] = sys.argv[1:]
    kept: list[str] = []
    arguments = iter(sys.argv)
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match is None:
            kept.append(argument)
            continue
        value = match[2] if match[2] is not None else next(arguments, None)
        if value is None:
            raise UsageError(f"{argument} needs a value. Received: none.")
        _changes.append((match[1], value))
    sys.argv[:] = kept


def typed() -> list[str]:
    """The arguments of the command line, including those that change the configuration."""
    return list(_typed)


def get(default: Any = None, processes: bool = False) -> Config:
    """The configuration that the command line names; without a file, the result of the function `default`.

    Args:
        default: a function; its result is used when the command line names no file.
        processes: the configuration goes to other processes, which import the modules of its parts.

    Raises:
        UsageError: the file or a key cannot be used.
    """
    path = flags.FLAGS.config
    if path is None and default is None:
        raise UsageError(f"{_WANTED} Received: none. Known: {', '.join(installed())}.")
    config = read(path) if path is not None else default()
    if not isinstance(config, Config):
        raise UsageError(f"{_WANTED} Received: {path}, whose get_config() returns an object of type "
                         f"{type(config).__name__}.")
    try:
        for key, value in _changes:
            config = replaced(config, {key: value_of(value)})
        check(config)
    except UserError as error:
        raise UsageError(str(error)) from error
    held = [*vars(config.model).values(), *vars(config.train).values()]
    own = [part.name for part in held if isinstance(part, Part) and type(part).__module__ == _MODULE]
    if processes and own:
        raise UsageError(f"--config: {path}: parts must be defined in a module that the file imports, since other "
                         f"processes use them. Received: {own}, defined in the file itself.")
    return config


def source(config: Config, docstring: str) -> str:
    """Python source of a file whose `get_config()` returns `config`; it lists only what differs from the defaults.

    Args:
        config: the configuration.
        docstring: the text of the file's docstring.
    """
    used: dict[str, set[str]] = {}
    body = _expression(config, used, "    ")
    text = docstring.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    imports = "".join(f"from {module} import {', '.join(sorted(names))}\n" for module, names in sorted(used.items()))
    return f'"""{text}\n"""\n\n{imports}\n\ndef get_config() -> Config:\n    return {body}\n'


def _expression(value: Any, used: dict[str, set[str]], indent: str) -> str:
    """The Python expression for `value`; the classes that it needs are added to `used`, by module."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    name = type(value).__name__
    used.setdefault(type(value).__module__, set()).add(name)
    default = type(value)()
    inner = indent + "    "
    lines = [
        f"{inner}{field.name}={_expression(getattr(value, field.name), used, inner)},\n"
        for field in dataclasses.fields(value) if getattr(value, field.name) != getattr(default, field.name)
    ]
    return f"{name}(\n{''.join(lines)}{indent})" if lines else f"{name}()"
