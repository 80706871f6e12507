"""Hard sharing (Caruana, 1997)."""

import dataclasses

import tensorflow as tf

from dlen_cam2.layers import Experts, Repeat
from dlen_cam2.models.context import Context
from dlen_cam2.models.parts import Trunk
from dlen_cam2.parts import option, trunk


@trunk("shared_bottom")
@dataclasses.dataclass
class SharedBottom(Trunk):
    """One network, the same for all tasks (Caruana, 1997).

    Attributes:
        units: layer sizes of the network; ReLU after each.
    """

    units: tuple[int, ...] = option(
        (256, 128, 64), least=1, some=True, search=["64", "128 64", "256 128 64", "512 256 128"]
    )

    title = "shared bottom"

    def __call__(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        bottom = Experts(1, self.units, name="shared_bottom")(x)
        return Repeat(context.tasks, name="to_tasks")(bottom)
