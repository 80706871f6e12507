"""Experiments for logs of your own, whatever their columns and tasks."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models.parts import Head, Trunk


def experiment(trunk: Trunk, head: Head) -> Config:
    """All features and tasks of whatever schema it is given, in sizes and at rates that no log is tuned for.

    Three passes for logs of up to some million rows. A larger one has steps enough in one pass with larger batches:
    `--config.train.epochs=1 --config.train.batch_size=4096`. The rates fall over the second half of the steps, since at
    constant rates the last batches decide how often a rare task is predicted. Several passes need ids that are not
    learned by heart: the schema that `--suggest_schema` proposes gives a row of its own to ids with 100 rows only.
    Rates, passes and cooldown, and those of a daily step (`config.train.daily`), were chosen on two logs that have
    little in common, a slice of KuaiRand's videos and a drawn shop; `docs/decisions/own_logs.md` says how.
    """
    return Config(
        name=f"own_{trunk.name}" + ("" if head.name == "logistic" else f"_{head.name}"),
        model=ModelConfig(trunk=trunk, head=head),
        train=TrainConfig(
            epochs=3, batch_size=512, embedding_learning_rate=0.02, learning_rate=0.002, cooldown=0.5
        ),
    )
