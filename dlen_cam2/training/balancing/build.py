"""From `config.train.balance` to a balancer."""

import tensorflow as tf

from dlen_cam2.config import BalanceConfig
from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.schema import Schema
from dlen_cam2.training.balancing.balancer import Balancer
from dlen_cam2.training.balancing.decay import Decay
from dlen_cam2.training.balancing.gradients import last_kernel
from dlen_cam2.training.balancing.gradnorm import GradNorm
from dlen_cam2.training.balancing.metabalance import MetaBalance
from dlen_cam2.training.balancing.pcgrad import PCGrad
from dlen_cam2.training.balancing.uncertainty import Uncertainty
from dlen_cam2.utils.errors import UserError


def balancer(config: BalanceConfig, schema: Schema, network: tf.keras.Model) -> Balancer | None:
    """What `config.method` names; None for "fixed". Call it in the scope of the strategy.

    Raises:
        UserError: `decay` or `main` does not fit the tasks, or the method needs the gradients of each task and the
            strategy is that of parameter servers, which cut the weights into shards.
    """
    names = [task.name for task in schema.tasks]
    tasks = len(names)
    if config.method == "fixed":
        return None
    if config.method == "decay":
        if len(config.decay) not in (1, tasks):
            raise UserError(
                f"config.train.balance.decay must hold one value, or one for each of the tasks {names}. "
                f"Received: {config.decay!r}."
            )
        return Decay(config.decay if len(config.decay) == tasks else config.decay * tasks)
    if config.method == "uncertainty":
        return Uncertainty(tasks, config.learning_rate)
    if isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
        raise UserError(
            "config.train.balance.method must be 'fixed', 'decay' or 'uncertainty' with --strategy=parameter_server, "
            f"whose weights lie in shards. Received: {config.method!r}."
        )
    if config.method == "gradnorm":
        return GradNorm(tasks, *last_kernel(network), config.alpha, config.learning_rate)
    if config.method == "pcgrad":
        return PCGrad(tasks, shared_weights(network))
    if config.main and config.main not in names:
        raise UserError(
            f"config.train.balance.main must be one of the tasks {names}, or empty for the first. "
            f"Received: {config.main!r}."
        )
    main = names.index(config.main) if config.main else 0
    return MetaBalance(tasks, shared_weights(network), main, config.relax, config.beta)
