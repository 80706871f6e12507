"""Conversion between `Schema` and `schema.pbtxt`, in the text format of tensorflow-metadata.

Types, vocabularies and integer ranges use the format's own fields. Everything else is a tag `key:value` in the
feature's annotation, so other readers of the format still understand the file.
"""

import difflib
import math
import os
import pathlib
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from dlen_cam2.schema import KEYS, Feature, Known, Schema, Task
from dlen_cam2.schema.computed_tags import COMPUTED, KNOWN, from_tags, known_from_tags, known_to_tags, to_tags
from dlen_cam2.utils.errors import UserError
from dlen_cam2.utils.files import join, read_bytes, write_text

FILE = "schema.pbtxt"
# Tags of a column. Others are left to other readers, but for what looks like one of these.
TAGS = ("cause", "embedding_width", "event", "hash_buckets", "key", "kind", "mask", "mean", "min_count", "negative",
        "oov_buckets", "positive_rate", "sample_space", "side", "std", "table", "target", "task", "task_mean",
        "task_std", "transform", "weight", *COMPUTED, *KNOWN)
_TYPES = {"int": schema_pb2.INT, "float": schema_pb2.FLOAT, "string": schema_pb2.BYTES}


def save(schema: Schema, directory: str | os.PathLike) -> None:
    """Write `directory/schema.pbtxt`."""
    write_text(pathlib.Path(directory) / FILE, dumps(schema))


def load(directory: str | os.PathLike) -> Schema:
    """Read `directory/schema.pbtxt`. Raises `UserError` naming the file if it is missing or breaks a rule."""
    path = join(directory, FILE)
    try:
        text = read_bytes(path).decode()
    except UserError as error:
        raise UserError(f"{directory} is not a data set: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{directory} is not a data set: {path} cannot be read. Received: {error}.") from error
    try:
        return loads(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def dumps(schema: Schema) -> str:
    """Convert a schema to tensorflow-metadata text. `loads(dumps(s)) == s`, and the text round-trips too."""
    proto = schema_pb2.Schema()
    proto.annotation.tag.append(f"dataset:{schema.name}")
    roles = {column: [f"key:{r}" for r in KEYS if schema.keys.get(r) == column] for column in schema.keys.values()}
    feedback = (*schema.targets, *schema.binary_columns)
    known = {name: known_to_tags(schema.known.get(name)) for name in feedback}
    for index, target in enumerate(schema.targets):
        roles[target] = [f"target:{index}", *roles.get(target, []), *known[target]]
    for task in schema.tasks:
        if task.is_number:
            roles[task.label] += _of_task(task)
    for feature in schema.features:
        _write_feature(proto.feature.add(), feature, roles.pop(feature.name, []))
    for task in schema.tasks:
        if not task.is_number:
            _write_column(proto, task.label, "int", _of_task(task) + known[task.label], binary=True)
    for mask in schema.mask_columns:
        _write_column(proto, mask, "int", ["sample_space", *known[mask]], binary=True)
    for column, tags in roles.items():
        dtype = "string" if column in schema.text_keys else "int"
        _write_column(proto, column, "float" if tags[0].startswith("target:") else dtype, tags)
    for column, when in schema.known.items():
        if column not in feedback:
            _write_column(proto, column, "int", ["event", *known_to_tags(when)])
    return text_format.MessageToString(proto, as_utf8=True)


def loads(text: str) -> Schema:
    """Parse the text that `dumps` writes. Raises `UserError` if it is not a schema or breaks a rule of `Schema`."""
    try:
        proto = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise UserError(f"the text must be a tensorflow-metadata schema. Received: {error}.") from error
    features, tasks, targets, keys, texts = [], [], {}, {}, []
    known: dict[str, Known] = {}
    for column in proto.feature:
        tags = _tags(column)
        for tag in tags.keys() - set(TAGS):
            if close := difflib.get_close_matches(tag, TAGS, 1, 0.75):
                raise UserError(f"column {column.name!r}: the tag {tag!r} is not known. Did you mean {close[0]!r}? "
                                f"Received tags: {list(column.annotation.tag)}. Known: {', '.join(TAGS)}.")
        for role in tags.get("key", []):
            keys[role] = column.name
            texts += [column.name] if column.type == schema_pb2.BYTES else []
        if "side" in tags or "cause" in tags:
            features.append(_read_feature(column, tags))
        if "target" in tags:
            targets[column.name] = _number(column, tags, "target", 0)
        if "task" in tags:
            tasks.append(Task(
                name=tags["task"][0], label=column.name, mask=_one(tags, "mask", ""),
                negative="negative" in tags,
                weight=_number(column, tags, "weight", 1.0),
                positive_rate=_number(column, tags, "positive_rate", 0.0),
                kind=_one(tags, "kind", "binary"), mean=_number(column, tags, "task_mean", 0.0),
                std=_number(column, tags, "task_std", 1.0),
            ))
        if found := known_from_tags(column.name, tags):
            if not tags.keys() & {"target", "task", "sample_space", "event"}:
                raise UserError(f"column {column.name!r}: only a label, a mask, a target or an event may say when it "
                                f"is known. Received tags: {list(column.annotation.tag)}.")
            known[column.name] = found
        elif "event" in tags:
            raise UserError(f"column {column.name!r}: an event must say when it is known, by known_at or known_after. "
                            f"Received tags: {list(column.annotation.tag)}.")
        if not tags.keys() & {"side", "cause", "task", "target", "sample_space", "key", "event"}:
            raise UserError(
                f"column {column.name!r} must be tagged as a feature (side:, cause:), a label (task:), a mask "
                f"(sample_space), a target, a key, or an event that features read. "
                f"Received tags: {list(column.annotation.tag)}."
            )
    if "dataset" not in _tags(proto):
        raise UserError(f"the schema must be tagged dataset:NAME. Received tags: {list(proto.annotation.tag)}.")
    ordered = tuple(sorted(targets, key=targets.__getitem__))
    return Schema(_tags(proto)["dataset"][0], tuple(features), tuple(tasks), ordered, keys, tuple(texts), known)


def _of_task(task: Task) -> list[str]:
    tags = [f"task:{task.name}", f"weight:{task.weight!r}"]
    if task.is_number:
        tags += [f"kind:{task.kind}", f"task_mean:{task.mean!r}", f"task_std:{task.std!r}"]
    else:
        tags.append(f"positive_rate:{task.positive_rate!r}")
    return [*tags, *([f"mask:{task.mask}"] if task.mask else []), *(["negative"] if task.negative else [])]


def _write_column(proto: Any, name: str, dtype: str, tags: list[str], binary: bool = False) -> None:
    column = proto.feature.add(name=name, type=_TYPES[dtype])
    column.presence.min_fraction = 1
    column.shape.dim.add(size=1)
    if binary:
        column.int_domain.min, column.int_domain.max = 0, 1
    column.annotation.tag.extend(tags)


def _write_feature(column: Any, feature: Feature, roles: list[str]) -> None:
    column.name, column.type = feature.name, _TYPES[feature.dtype]
    if feature.is_list:
        column.value_count.min, column.value_count.max = 0, feature.max_length
    else:
        column.shape.dim.add(size=1)
        column.presence.min_fraction = 1
    tags = [f"side:{feature.side}", f"cause:{feature.cause}", *roles]
    if feature.is_numeric:
        if feature.transform:
            tags.append(f"transform:{feature.transform}")
        tags += [f"mean:{feature.mean!r}", f"std:{feature.std!r}"]
    else:
        tags += [f"embedding_width:{feature.width}", f"table:{feature.table}"]
        if feature.hashed:
            tags.append(f"hash_buckets:{feature.size}")
        elif feature.has_vocabulary:
            column.string_domain.name = feature.table
            column.string_domain.value.extend(map(str, feature.vocabulary))
            tags += [f"min_count:{feature.min_count}"] if feature.min_count else []
            tags += [f"oov_buckets:{feature.oov_buckets}"] if feature.oov_buckets else []
        else:
            column.int_domain.min, column.int_domain.max = 0, feature.size - 1
            column.int_domain.is_categorical = True
    column.annotation.tag.extend(tags + (to_tags(feature.computed) if feature.computed else []))


def _read_feature(column: Any, tags: dict[str, list[str]]) -> Feature:
    dtypes = {v: k for k, v in _TYPES.items()}
    if column.type not in dtypes:
        raise UserError(f"feature {column.name!r}: type must be INT, FLOAT or BYTES. Received: {column.type}.")
    hashed = "hash_buckets" in tags
    numeric = column.type == schema_pb2.FLOAT
    size = int(_number(column, tags, "hash_buckets", 0))
    if column.HasField("int_domain") and not numeric and not hashed:
        size = column.int_domain.max + 1
    vocabulary: tuple[Any, ...] = tuple(column.string_domain.value)
    if column.type == schema_pb2.INT:
        if wrong := [v for v in vocabulary if not (v.isascii() and v.isdigit())]:
            raise UserError(f"feature {column.name!r}: the vocabulary of an INT must hold ids. Received: {wrong[:3]}.")
        vocabulary = tuple(map(int, vocabulary))
    return Feature(
        name=column.name, dtype=dtypes[column.type],
        side=_group(column, tags, "side"), cause=_group(column, tags, "cause"),
        size=size, hashed=hashed, vocabulary=vocabulary,
        min_count=int(_number(column, tags, "min_count", 0)), oov_buckets=int(_number(column, tags, "oov_buckets", 0)),
        width=int(_number(column, tags, "embedding_width", 0)), table=_one(tags, "table", ""),
        max_length=column.value_count.max if column.HasField("value_count") else 1,
        transform=_one(tags, "transform", ""),
        mean=_number(column, tags, "mean", 0.0), std=_number(column, tags, "std", 1.0),
        computed=from_tags(column.name, tags),
    )


def _tags(annotated: Any) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for tag in annotated.annotation.tag:
        key, _, value = tag.partition(":")
        tags.setdefault(key, []).append(value)
    return tags


def _group(column: Any, tags: dict[str, list[str]], key: str) -> str:
    """A feature's only side or cause: each of CAM2's branches reads its own part of the features."""
    found = tags.get(key, [])
    if len(found) != 1:
        raise UserError(
            f"feature {column.name!r} must be tagged with exactly one side: and one cause:. "
            f"Received {key}: {found}."
        )
    return found[0]


def _one(tags: dict[str, list[str]], key: str, default: str) -> str:
    return tags.get(key, [default])[0]


def _number(column: Any, tags: dict[str, list[str]], key: str, default: float) -> float:
    text = _one(tags, key, repr(default))
    try:
        number = float(text)
    except ValueError as error:
        raise UserError(f"column {column.name!r}: tag {key} must be a number. Received: {text!r}.") from error
    if not math.isfinite(number):
        raise UserError(f"column {column.name!r}: tag {key} must be finite. Received: {text!r}.")
    return number
