"""`ReadOut`: what the outputs of a network mean."""

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
    """What the outputs of a network mean: its head and causal branches, asked with its tasks.

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
        """(B, T), see `Head.predictions`."""
        return self.head.predictions(outputs, self.schema)

    def targets(self, labels: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels and masks as logged, (B, T) each; what is trained may differ, see `Head.targets`."""
        return targets(labels, self.schema)

    def scores(self, outputs: Outputs, calibrate: Calibrate | None = None) -> dict[str, tf.Tensor]:
        """{name: (B,)}: what the head serves."""
        return self.head.scores(outputs, self.schema, calibrate)

    def causes(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """{name: (B,)}: scores of a row's causes; empty without branches."""
        return {} if self.causal is None else self.causal.scores(outputs)

    def names(self, causes: bool) -> list[str]:
        """The names of `scores`, and with `causes` those of `causes`."""
        found = self.head.score_names(self.schema)
        return [*found, *self.causal.score_names] if causes and self.causal is not None else found

    def served(self, outputs: Outputs, causes: bool) -> dict[str, Any]:
        """The outputs that `scores`, and with `causes` `causes`, read; what training alone needs is left out."""
        if self.causal is None or causes:
            return dict(outputs)
        return {name: t for name, t in outputs.items() if name not in self.causal.output_names}

    def losses(self, fitted: Mapping[str, Any]) -> list[Loss]:
        """What parts add to the tasks' losses."""
        found = (part.loss(self.schema, fitted) for part in network_parts(self.config))
        return [loss for loss in found if loss is not None]


def network_parts(config: ModelConfig) -> list[NetworkPart]:
    """The parts of a network, in the order of their fields."""
    held = (getattr(config, field.name) for field in dataclasses.fields(config))
    return [part for part in held if isinstance(part, NetworkPart)]
