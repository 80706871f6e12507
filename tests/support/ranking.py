"""Exported models of `tiny_schema`: a user with candidates against the rows."""

import numpy as np
import tensorflow as tf

from tests.support.builders import raw_batch, tiny_schema


def assert_ranks_like_rows(signatures, rtol=1e-5):
    """A user with eight candidates, against the eight rows; the context's once or for each."""
    side = {f.name: f.side for f in tiny_schema().features}
    columns = raw_batch(8)
    for once in ({"user"}, {"user", "context"}):
        short = {name: column[:1] if side[name] in once else column for name, column in columns.items()}
        rows = {name: np.repeat(c, 8, axis=0) if len(c) == 1 else c for name, c in short.items()}
        wanted = signatures["raw"](**{name: tf.constant(column) for name, column in rows.items()})
        found = signatures["rank"](**{name: tf.constant(column) for name, column in short.items()})
        assert set(found) == {*wanted, "order"}
        for name, scores in wanted.items():
            np.testing.assert_allclose(found[name], scores, rtol=rtol, err_msg=name)
        np.testing.assert_array_equal(found["order"], np.argsort(-found["fused"].numpy(), kind="stable"))
