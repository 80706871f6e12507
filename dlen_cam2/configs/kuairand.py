"""The common part of all KuaiRand experiments; each file beside this one names a trunk and a head."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models.parts import Head, Trunk


def experiment(trunk: Trunk, head: Head) -> Config:
    """Experts as in DLEN's section 4.1.1, the parts' defaults: 5 (shared), PLE 2 more a task, all [256, 128, 64]; the
    rest is DESIGN, since the paper does not state it.

    One pass: ids overfit in the second. The weight of profile_enter was chosen on 05-05 and the cooldown on 05-04 (see
    `docs/results/kuairand.md`).
    """
    return Config(
        name=f"kuairand_{trunk.name}" + ("" if head.name == "logistic" else f"_{head.name}"),
        model=ModelConfig(
            trunk=trunk, head=head,
            # click, long_view, like, profile_enter, comment, follow, forward, hate
            task_weights=(1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0),
        ),
        train=TrainConfig(epochs=1, batch_size=512, embedding_learning_rate=0.03, cooldown=0.2),
    )
