"""Rows as requests of the signatures."""

import tensorflow as tf


def of_one_user(schema, columns, once=("user",)):
    """The columns with one row of the user (and of other sides named in `once`)."""
    side = {f.name: f.side for f in schema.features}
    return {name: column[:1] if side.get(name) in once else column for name, column in columns.items()}


def as_tensors(schema, columns):
    return {f.name: tf.constant(columns[f.name]) for f in schema.features}
