"""Experiments for logs of your own, whatever their columns and tasks."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig


def experiment(trunk: str, head: str) -> Config:
    """All features and tasks of whatever schema it is given, in sizes and at rates that no log is tuned for.

    One pass, since ids of users and items are learned by heart in the second; rates that fall over the second half of
    it, since at constant rates the last batches decide how often a rare task is predicted. Rates, passes and cooldown,
    and those of a daily step (`config.train.daily`), were chosen on two logs that have little in common, a slice of
    KuaiRand's videos and a drawn shop; the documentation of your own logs says how.
    """
    return Config(
        name=f"own_{trunk}" + ("" if head == "plain" else f"_{head}"),
        model=ModelConfig(trunk=trunk, head=head),
        train=TrainConfig(epochs=1, batch_size=512, embedding_learning_rate=0.05, cooldown=0.5),
    )
