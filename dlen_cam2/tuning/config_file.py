"""A configuration as a Python file, such as those in `dlen_cam2/configs`."""

import dataclasses
import json
from typing import Any

from dlen_cam2.config import Config


def source(config: Config, docstring: str) -> str:
    """The file: a docstring, and `get_config()`, which names what differs from the defaults.

    Args:
        config: the configuration.
        docstring: any text.
    """
    used: set[str] = set()
    body = _expression(config, used, "    ")
    text = docstring.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return (
        f'"""{text}\n"""\n\nfrom dlen_cam2.config import {", ".join(sorted(used))}\n\n\n'
        f"def get_config() -> Config:\n    return {body}\n"
    )


def _expression(value: Any, used: set[str], indent: str) -> str:
    """Python that makes `value`; names of the classes that it needs go to `used`."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    name = type(value).__name__
    used.add(name)
    default = type(value)()
    inner = indent + "    "
    lines = [
        f"{inner}{field.name}={_expression(getattr(value, field.name), used, inner)},\n"
        for field in dataclasses.fields(value) if getattr(value, field.name) != getattr(default, field.name)
    ]
    return f"{name}(\n{''.join(lines)}{indent})" if lines else f"{name}()"
