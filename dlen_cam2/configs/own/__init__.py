"""Experiments for your own logs, whatever their columns and tasks."""

from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models.parts import Head, Trunk


def experiment(trunk: Trunk, head: Head) -> Config:
    """An experiment with all features and tasks of the given schema, in sizes and at rates not tuned for any log.

    Three passes suit logs of up to some million rows. A larger log has enough steps in one pass with larger batches:
    `--config.train.epochs=1 --config.train.batch_size=4096`. The rates fall over the second half of the steps, since at
    constant rates the last batches decide how often a rare task is predicted. Several passes require that ids are not
    learned by heart: the schema that `--suggest_schema` proposes gives only ids with 100 rows a row of their own.
    Rates, passes and cooldown, and those of a daily step (`config.train.daily`), were chosen on two logs that have
    little in common, a slice of KuaiRand's videos and a simulated shop; `docs/decisions/own_logs.md` explains how.
    """
    return Config(
        name=f"own_{trunk.name}" + ("" if head.name == "logistic" else f"_{head.name}"),
        model=ModelConfig(trunk=trunk, head=head),
        train=TrainConfig(
            epochs=3, batch_size=512, embedding_learning_rate=0.02, learning_rate=0.002, cooldown=0.5
        ),
    )
