"""What all KuaiRand experiments have in common; each file beside this one names a trunk and a head."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def experiment(trunk: str, head: str) -> Config:
    """Experts as in DLEN's section 4.1.1: 5 (shared), PLE with 2 more for each task, all [256, 128, 64]; the rest is
    DESIGN, since the paper does not state it.

    One pass: ids overfit in the second. The weight of profile_enter was chosen on 05-05, the cooldown on 05-04 (see
    README).
    """
    return Config(
        name=f"kuairand_{trunk}" + ("" if head == "plain" else f"_{head}"),
        model=ModelConfig(
            trunk=trunk, head=head, experts=5, task_experts=2, expert_units=(256, 128, 64),
            # click, long_view, like, profile_enter, comment, follow, forward, hate
            task_weights=(1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0),
        ),
        train=TrainConfig(epochs=1, batch_size=512, embedding_learning_rate=0.03, cooldown=0.2),
    )
