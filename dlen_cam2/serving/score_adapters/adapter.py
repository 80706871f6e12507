"""`ScoreAdapter`, the base class of the score adapters."""

from collections.abc import Mapping

import tensorflow as tf

from dlen_cam2.parts import Part


class ScoreAdapter(Part):
    """Changes the scores of a request, inside the SavedModel, before they are fused.

    Its data is kept in assets, which are read when the SavedModel is loaded, so that a version with other assets needs
    no training (`Fusion` does the same with its weights).
    """

    def __call__(self, scores: Mapping[str, tf.Tensor], columns: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Change the scores {name: (B,)}, keeping their names and shapes.

        Args:
            scores: the scores of the model.
            columns: the raw request: (B,) or (B, L) each; in `rank`, the user's columns are (1,) or (1, L).
        """
        raise NotImplementedError

    def tracked(self) -> tf.Module | None:
        """The object that holds the adapter's variables and assets, to be stored with the SavedModel."""
        return None
