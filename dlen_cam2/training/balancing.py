"""Multi-task loss balancing: what a training step does about tasks that pull in different directions.

The losses that reach a balancer are ω_k L_k, with the schema's weights, over the rows of all replicas. A task without
rows in a batch, or with the weight 0, has the loss 0. CERTAIN and DESIGN say where a choice is from, as in BUILD.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dlen_cam2.config import BalanceConfig
from dlen_cam2.layers.axes import shared_weights
from dlen_cam2.schema import Schema
from dlen_cam2.training.gradients import Shared, added, gram, last_kernel, side_by_side, total
from dlen_cam2.utils.errors import UserError


class Balancer(tf.Module):
    """What `Ranker.train_step` asks. Variables are part of the checkpoint.

    Attributes:
        by_task: whether `combine` is called, with the gradients of each task.
    """

    by_task = False

    def weights(self) -> tf.Tensor:
        """(T,): factors of the tasks' losses in this step."""
        raise NotImplementedError

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        """One gradient for each variable. Called if `by_task`.

        Args:
            gradients: for each task, and at the end for all other losses (CAM2's, regularisers), one gradient for each
                of `variables`: a dense tensor, `tf.IndexedSlices` (rows of embedding tables) or None. They are summed
                over all replicas, and are of the losses times `weights()`.
            losses: (T + 1,), without `weights()`; the last of all other losses.
            variables: the network's.
        """
        raise NotImplementedError

    def update(self, losses: tf.Tensor) -> None:
        """Called at the end of a step with the tasks' losses (T,) over all replicas, without `weights()`."""
        return  # AutoGraph cannot read a function without a body


class Decay(Balancer):
    """Weights that fall from step to step: `ω_k,t = ω_k,0 γ_k^t`.

    CERTAIN (PLE, Tang et al., 2020): γ_k^t at update t. ω_k,0 is the schema's weight, which the losses have already.

    Args:
        gammas: γ of each task.
    """

    def __init__(self, gammas: Sequence[float]):
        super().__init__()
        self.gammas = tuple(gammas)
        self.step = _state(tf.zeros((), tf.int64), "step")

    def weights(self) -> tf.Tensor:
        return tf.pow(tf.constant(self.gammas, tf.float32), tf.cast(self.step, tf.float32))

    def update(self, losses: tf.Tensor) -> None:
        self.step.assign_add(1)


class Uncertainty(Balancer):
    """Weights that a task's own uncertainty lowers: `Σ_k L_k e^{-s_k} + s_k / 2`, s learned with the network.

        w_k = e^{-s_k}        s_k ← s_k - η (1/2 - L_k e^{-s_k})

    CERTAIN (Kendall et al., 2018): the classification form; the regression form has L_k / 2 (LibMTL). s_k rests at
    log 2 L_k, where w_k = 1 / (2 L_k). DESIGN: plain gradient descent from s = 0. DESIGN: L_k is the given ω_k L_k, so
    that in the end ω_k cancels and only sets where training starts. DESIGN: s_k stays where the loss is 0, or the
    weight of a task without rows would grow without end.

    Args:
        tasks: number of tasks T.
        learning_rate: η.
    """

    def __init__(self, tasks: int, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate
        self.s = _state(tf.zeros(tasks), "s")

    def weights(self) -> tf.Tensor:
        return tf.exp(-self.s)

    def update(self, losses: tf.Tensor) -> None:
        slope = tf.where(losses > 0, 0.5 - losses * tf.exp(-self.s), 0.0)
        self.s.assign_sub(self.learning_rate * slope)


class GradNorm(Balancer):
    """Weights under which all tasks pull equally hard on the last shared layer, and slow learners harder.

        w = T softmax(s)                  G_k = ‖∇_W w_k L_k‖
        r_k = L̃_k / mean L̃               L̃_k = L_k(t) / L_k(0)
        L_grad = Σ_k |G_k - c_k|          c_k = mean G · r_k^α, a constant
        ∂L_grad/∂s_m = a_m - w_m / T · Σ_k a_k,     a_k = sign(G_k - c_k) G_k

    CERTAIN (Chen et al., 2018, in LibMTL's form): the equations; gradients of L_grad go to s only. DESIGN: W is the
    kernel of the last layer of the trunk's (last) experts, of PLE's last level the shared experts' part. DESIGN: L_k(0)
    is a task's first loss that is not 0 (LibMTL: the mean of the first epoch). DESIGN: plain gradient descent from
    s = 0. DESIGN: means are over the tasks whose loss is not 0, or the weight of one without rows would grow.

    Args:
        tasks: number of tasks T.
        kernel: index of W among the network's trainable variables.
        mask: which elements of W more than one task reaches, 1 or 0.
        alpha: α.
        learning_rate: of s.
    """

    by_task = True

    def __init__(self, tasks: int, kernel: int, mask: np.ndarray, alpha: float, learning_rate: float):
        super().__init__()
        self.kernel = kernel
        self.mask = mask
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.s = _state(tf.zeros(tasks), "s")
        self.first_losses = _state(tf.zeros(tasks), "first_losses")

    def weights(self) -> tf.Tensor:
        return self.s.shape[0] * tf.nn.softmax(self.s)

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        pulls = side_by_side([each[self.kernel] for each in gradients[:-1]], self.mask)
        self._learn(tf.norm(pulls.vectors()[:, 0], axis=1), losses[:-1])
        return [added(each) for each in zip(*gradients, strict=True)]

    def _learn(self, norms: tf.Tensor, losses: tf.Tensor) -> None:
        """One step of s, from G and L, (T,)."""
        here = tf.cast(losses > 0, tf.float32)
        self.first_losses.assign(tf.where(self.first_losses > 0, self.first_losses, losses))
        progress = tf.math.divide_no_nan(losses, self.first_losses)
        rates = tf.math.divide_no_nan(progress, _mean(progress, here))
        wanted = _mean(norms, here) * rates**self.alpha
        a = tf.sign(norms - wanted) * norms
        self.s.assign_sub(self.learning_rate * (a - tf.nn.softmax(self.s) * tf.reduce_sum(a)))


class SharedGradients(Balancer):
    """Adds up the tasks' gradients, those of shared weights with factors that a subclass finds.

    DESIGN: shared are the trunk's embeddings and experts, but for PLE's task experts of the last level, as their
    layers declare, see `dlen_cam2.layers.axes`. The gradients of all other weights (gates, towers, heads, the latent
    state, CAM2's branches), and those of all other losses, are added as they are.

    Args:
        tasks: number of tasks T.
        masks: what `shared_weights` returns.
    """

    by_task = True

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None]):
        super().__init__()
        self.tasks = tasks
        self.masks = tuple(masks)

    def weights(self) -> tf.Tensor:
        return tf.ones(self.tasks)

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        """By the index of a shared weight: (T, 1), or (T, rows) for a table."""
        raise NotImplementedError

    def combine(
        self, gradients: Sequence[Sequence[Any]], losses: tf.Tensor, variables: Sequence[tf.Variable]
    ) -> list[Any]:
        by_weight = list(zip(*gradients, strict=True))
        shared = {
            n: side_by_side(of_tasks, mask) for n, ((*of_tasks, _), mask)
            in enumerate(zip(by_weight, self.masks, strict=True))
            if mask is not None and any(g is not None for g in of_tasks)
        }
        factors = self.factors(shared)
        return [
            total([shared[n].total(factors[n]), each[-1]] if n in shared else each) for n, each in enumerate(by_weight)
        ]


class PCGrad(SharedGradients):
    """Gradient surgery: a task's gradient loses what opposes another task's.

        for each task i, for each j ≠ i in random order:
            if g_i · g_j < 0:  g_i ← g_i - (g_i · g_j / ‖g_j‖²) g_j        with the original g_j
        g = Σ_i g_i

    CERTAIN (Yu et al., 2020; LibMTL): the equations, and that all dense shared weights are one vector. DESIGN: each row
    of an embedding table that the batch touches is a vector of its own, since two tasks may agree about one video and
    not about another. DESIGN: the orders are drawn from a seed and a step counter, both in the checkpoint, so that
    every replica draws the same ones.

    All g_i stay sums of the original gradients, so the inner products of these are all that the loop needs.
    """

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None]):
        super().__init__(tasks, masks)
        # numpy's seed is set by tf.keras.utils.set_random_seed, together with TensorFlow's.
        self.seed_and_step = _state(tf.constant([np.random.randint(2**31), 0], tf.int64), "seed_and_step")

    def update(self, losses: tf.Tensor) -> None:
        self.seed_and_step.assign_add(tf.constant([0, 1], tf.int64))

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        draws = tf.random.stateless_uniform((self.tasks, self.tasks), self.seed_and_step)
        orders = tf.argsort(draws, axis=1)
        grams = {n: gram(weight.vectors()) for n, weight in shared.items()}
        dense = [n for n, weight in shared.items() if weight.rows is None]
        factors = {n: projected(each, orders) for n, each in grams.items() if n not in dense}
        if dense:
            of_all = projected(tf.add_n([grams[n] for n in dense]), orders)
            factors |= dict.fromkeys(dense, of_all)
        return factors


def projected(products: tf.Tensor, orders: tf.Tensor) -> tf.Tensor:
    """PCGrad's loop, for many groups of T vectors at once.

    Args:
        products: (R, T, T), g_i · g_j in each group.
        orders: (T, T), for each i all tasks in the order in which they are met.

    Returns:
        (T, R), factors of the original gradients in Σ_i g_i.
    """
    tasks = products.shape[-1]
    # g_i = Σ_m made[i, m] (original g_m)
    made = tf.eye(tasks, batch_shape=tf.shape(products)[:1])
    squares = tf.linalg.diag_part(products)
    for met in tf.unstack(orders, axis=1):
        dots = tf.reduce_sum(made * tf.gather(products, met, axis=1), axis=2)
        opposed = (dots < 0) & (met != tf.range(tasks))
        share = tf.where(opposed, tf.math.divide_no_nan(dots, tf.gather(squares, met, axis=1)), 0.0)
        made -= share[:, :, None] * tf.one_hot(met, tasks)
    return tf.transpose(tf.reduce_sum(made, axis=1))


class MetaBalance(SharedGradients):
    """Auxiliary tasks' gradients are brought near the norm of the main task's, in each shared weight.

        n_k ← β n_k + (1 - β) ‖g_k‖
        g = g_main + Σ_{k ≠ main} (r n_main / n_k + 1 - r) g_k

    CERTAIN (He et al., 2022; equations of the official code, re-implemented): a moving norm for each weight tensor and
    task, from 0; gradients are scaled up as well as down. DESIGN: an embedding table is one tensor, with the norm over
    the rows that the batch touches (the official code has dense gradients only).

    Args:
        tasks, masks: see `SharedGradients`.
        main: index of the main task.
        relax: r.
        beta: β.
    """

    def __init__(self, tasks: int, masks: Sequence[np.ndarray | None], main: int, relax: float, beta: float):
        super().__init__(tasks, masks)
        self.main = main
        self.relax = relax
        self.beta = beta
        self.norms = _state(tf.zeros((len(self.masks), tasks)), "norms")

    def factors(self, shared: Mapping[int, Shared]) -> Mapping[int, tf.Tensor]:
        found = [
            tf.norm(shared[n].vectors(), axis=(1, 2)) if n in shared else tf.zeros(self.tasks)
            for n in range(len(self.masks))
        ]
        new = tf.stack(found)
        # DESIGN: the norm of a task that is absent from a batch stays; the official code lets it fall.
        norms = self.norms.assign(tf.where(new > 0, self.beta * self.norms + (1 - self.beta) * new, self.norms))
        ratios = tf.math.divide_no_nan(norms[:, self.main, None], norms)
        return {n: self.relax * ratios[n][:, None] + (1 - self.relax) for n in shared}


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


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    """A variable of which every replica computes the same value."""
    return tf.Variable(value, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(values * mask), tf.reduce_sum(mask))
