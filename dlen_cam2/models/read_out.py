"""`ReadOut`: interprets the outputs of a network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dlen_cam2.config import ModelConfig
from dlen_cam2.labels.kind import Calibrate, targets
from dlen_cam2.models.parts import Causal, Head, Loss, NetworkPart, Outputs
from dlen_cam2.schema import Schema


@dataclasses.dataclass(frozen=True)
class ReadOut:
    """Interprets the outputs of a network, by calling its head and causal branches with its tasks.

    Attributes:
        config, schema: what the network was built from.
    """

    config: ModelConfig
    schema: Schema

    @property
    def head(self) -> Head:
        assert isinstance(self.config.head, Head)
        return self.config.head

    @property
    def causal(self) -> Causal | None:
        assert self.config.causal is None or isinstance(self.config.causal, Causal)
        return self.config.causal

    def predictions(self, outputs: Outputs) -> tf.Tensor:
        """The predictions (B, T), see `Head.predictions`."""
        return self.head.predictions(outputs, self.schema)

    def targets(self, labels: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The labels and masks as logged, (B, T) each; those that are trained on may differ, see `Head.targets`."""
        return targets(labels, self.schema)

    def scores(self, outputs: Outputs, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """The scores that the head serves, {name: (B,)}."""
        return self.head.scores(outputs, self.schema, calibrate)

    def causes(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """The scores of a row's causes, {name: (B,)}; empty without branches."""
        return {} if self.causal is None else self.causal.scores(outputs)

    def names(self, causes: bool) -> list[str]:
        """The names of `scores`, and with `causes` those of `causes`."""
        found = self.head.score_names(self.schema)
        return [*found, *self.causal.score_names] if causes and self.causal is not None else found

    def served(self, outputs: Outputs, causes: bool) -> dict[str, Any]:
        """The outputs that `scores` reads, and `causes` if asked for; outputs that only training needs are left out."""
        if self.causal is None or causes:
            return dict(outputs)
        return {name: t for name, t in outputs.items() if name not in self.causal.output_names}

    def losses(self, fitted: Mapping[str, Any]) -> list[Loss]:
        """The losses that parts add to the tasks' losses."""
        found = (part.loss(self.schema, fitted) for part in network_parts(self.config))
        return [loss for loss in found if loss is not None]


def network_parts(config: ModelConfig) -> list[NetworkPart]:
    """The parts of a network, in the order of their fields."""
    held = (getattr(config, field.name) for field in dataclasses.fields(config))
    return [part for part in held if isinstance(part, NetworkPart)]
