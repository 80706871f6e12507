"""Columns of any values, for hypothesis."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 300),
    st.sampled_from([2**63 - 1, -(2**63), -1, 0, 127, 128, 2**24 + 1]),
)
FLOAT32 = st.floats(width=32, allow_subnormal=True)
TEXT = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(["", "快手", "😀\n\x00", "ä" * 300])
)
KINDS = {
    "int": (pa.int64(), INT64),
    "float": (pa.float32(), FLOAT32),
    "string": (pa.string(), TEXT),
    "ints": (pa.list_(pa.int64()), st.one_of(st.lists(INT64, max_size=4), st.just(list(range(-60, 200))))),
    "strings": (pa.list_(pa.string()), st.one_of(st.lists(TEXT, max_size=4), st.just(["x"] * 150))),
}


def same(column, found):
    """Equality of one cell, of floats by their bits (the sign of zero, subnormals), any NaN equal to any NaN."""
    if pa.types.is_float32(column.type):
        wanted, found = np.float32(column.as_py()), np.float32(found[0])
        return wanted.tobytes() == found.tobytes() or (np.isnan(wanted) and np.isnan(found))
    wanted = column.as_py() if isinstance(column.as_py(), list) else [column.as_py()]
    return [v.encode() if isinstance(v, str) else v for v in wanted] == list(found)
