"""The tags of `schema.pbtxt` that say how a feature is computed, and when feedback is known."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dlen_cam2.schema.computed import SECONDS, Computed, Known
from dlen_cam2.utils.errors import UserError

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Computed) if f.name not in ("kind", "by")}
_NUMBERS = ("strength", "start", "missing")
COMPUTED = ("computed", "by", *_DEFAULTS)
KNOWN = ("known_after", "known_at", "within")


def to_tags(computed: Computed) -> list[str]:
    """The tags of a computed feature, one `by` for each column of its key; what has its default is left out."""
    tags = [f"computed:{computed.kind}", *(f"by:{column}" for column in computed.by)]
    for name, default in _DEFAULTS.items():
        value = getattr(computed, name)
        if value != default:
            tags.append(f"{name}:{value!r}" if name in _NUMBERS else f"{name}:{value}")
    return tags


def from_tags(name: str, tags: Mapping[str, list[str]]) -> Computed | None:
    """How the feature `name` with these tags is computed; None if it is a column of the log.

    Raises:
        UserError: a tag stands twice, is no number, lacks `computed`, or breaks a rule of `Computed`.
    """
    given = {key: tags[key] for key in COMPUTED if key in tags}
    if not given:
        return None
    if twice := [key for key, values in given.items() if len(values) > 1 and key != "by"]:
        raise UserError(f"feature {name!r}: a computed feature must have each tag once. Received twice: {twice}.")
    if "computed" not in given:
        raise UserError(f"feature {name!r}: the tag computed:KIND must stand beside {sorted(given)}. Received: none.")
    values: dict[str, Any] = {key: found[0] for key, found in given.items() if key != "computed"}
    for key in values.keys() & set(_NUMBERS):
        values[key] = _number(f"feature {name!r}: tag {key}", values[key])
    values["by"] = tuple(given.get("by", ()))
    try:
        return Computed(given["computed"][0], **values)
    except UserError as error:
        raise UserError(f"feature {name!r}: {error}") from error


def known_to_tags(known: Known | None) -> list[str]:
    """The tags that say when a column is known; none if it is known at the exposure."""
    if known is None:
        return []
    tags = [f"known_at:{known.at}"] * bool(known.at) + [f"known_after:{known.after}"] * bool(known.after)
    tags += [f"known_after:{_plain(known.seconds)}"] * bool(known.seconds)
    return tags + [f"within:{_plain(known.within)}"] * bool(known.within)


def known_from_tags(name: str, tags: Mapping[str, list[str]]) -> Known | None:
    """When the column `name` with these tags is known; None if the tags do not say it.

    Raises:
        UserError: a tag stands twice, or the tags break a rule of `Known`.
    """
    given = {key: tags[key] for key in KNOWN if key in tags}
    if not given:
        return None
    if twice := [key for key, values in given.items() if len(values) > 1]:
        raise UserError(f"column {name!r}: it must be said once when it is known. Received twice: {twice}.")
    after = given.get("known_after", [""])[0]
    constant = _seconds(after)
    within = given.get("within", ["0"])[0]
    limit = _seconds(within)
    if limit is None:
        raise UserError(f"column {name!r}: tag within must be a time such as 24h, or seconds. Received: {within!r}.")
    try:
        return Known(given.get("known_at", [""])[0], "" if constant is not None else after, constant or 0.0, limit)
    except UserError as error:
        raise UserError(f"column {name!r}: {error}") from error


def _plain(seconds: float) -> str:
    """A number without an exponent, which `_seconds` reads back."""
    return f"{seconds:.0f}" if seconds == round(seconds) else repr(seconds)


def _seconds(text: str) -> float | None:
    """The seconds of "90", "90s", "1.5h" or "7d"; None for any other text, such as the name of a column."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    return float(found[1]) * SECONDS[found[2] or "s"] if found else None


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{what} must be a number. Received: {text!r}.") from error
