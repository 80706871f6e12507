"""What every score adapter is."""

from collections.abc import Mapping

import tensorflow as tf

from dlen_cam2.parts import Part


class ScoreAdapter(Part):
    """Changes the scores of a request, inside the SavedModel, before they are fused.

    It keeps what it knows in assets, which are read when the SavedModel is loaded, so that a version with other assets
    needs no training (`Fusion` does the same with its weights).
    """

    def __call__(self, scores: Mapping[str, tf.Tensor], columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """{name: (B,)} -> the same names and shapes.

        Args:
            scores: what the model says.
            columns: the request as it came, raw: (B,) or (B, L) each; of `rank` the user's are (1,) or (1, L).
        """
        raise NotImplementedError

    def tracked(self) -> tf.Module | None:
        """What holds the adapter's variables and assets, to be stored with the SavedModel."""
        return None
