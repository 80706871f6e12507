"""A column as pairs (row, code of a value), coded once for all labels that are checked against it."""

from functools import cached_property

import numpy as np

from pipelines.writer.stored_rows import Column


class Coded:
    """A column as pairs (row, code); codes ascend with their values.

    Attributes:
        known: the distinct values, ascending; the code of `known[c]` is c.
        empty: the code of an empty list, which counts as a value: `len(known)`.
        size: the number of codes.
        rows, codes: (pairs,), with one pair for each row, or for each element of a list.
        is_list: whether the column holds lists.
    """

    def __init__(self, column: Column):
        self.known, codes = np.unique(column.values, return_inverse=True)
        lengths = np.ones(len(codes), np.int64) if column.lengths is None else column.lengths
        empty = np.flatnonzero(lengths == 0)
        self.is_list = column.lengths is not None
        self.empty, self.size = len(self.known), len(self.known) + 1
        self.rows = np.concatenate([np.repeat(np.arange(len(lengths)), lengths), empty])
        self.codes = np.concatenate([codes, np.full(len(empty), self.empty)])

    @cached_property
    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows and codes, in which a value that occurs twice in a list is one pair."""
        if not self.is_list:
            return self.rows, self.codes
        pairs = np.sort(self.rows * self.size + self.codes)
        first = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
        return pairs[first] // self.size, pairs[first] % self.size
