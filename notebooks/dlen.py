# %% [markdown]
# # DLEN: a latent state behind all behaviours
#
# DLEN (Deep Latent Emotion Network, Zhang et al., Tencent) begins with two observations on feeds (its section 1):
# users who like an item mostly show it by *one* behaviour, and which one differs from user to user. So most rows that
# are negative for `like` do not mean dislike, and tasks that share layers pull these layers in opposite directions.
# The remedy is a state that no log records, UP, "the user prefers this item", which all tasks share.
#
# This notebook shows where P(UP) comes from, what the cap α does, and how well P(UP) is found when the truth is known.
# The world is small, so do not read small differences.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from IPython.display import Markdown

from dlen_cam2 import data, evaluation
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.evaluation.truth import recovery, table, truth_at
from dlen_cam2.metrics import auc
from dlen_cam2.models import DLEN, MMOE
from dlen_cam2.models.heads.dlen import capped_probability
from dlen_cam2.training import jobs, passes
from dlen_cam2.utils.markdown import markdown
from pipelines import simulate

# %% [markdown]
# ## 1. The equations
#
# For each behaviour $k$ (the paper writes CBL, "click button to like"):
#
# $$P(k) = P(k|UP)\,P(UP) + P(k|\overline{UP})\,P(\overline{UP}) \qquad (1) \qquad\qquad P(UP) + P(\overline{UP}) = 1
# \qquad (2)$$
#
# A user who does not prefer an item seldom reacts to it, $0 < P(k|\overline{UP}) < \alpha_k$ (7). With $X^k$ the
# output of the tower of task $k$,
#
# $$P(k|UP) = \sigma(w_a X^k) \quad (9) \qquad\qquad P(k|\overline{UP}) = \alpha_k\,\sigma(w_b X^k) \quad (10)$$
#
# and P(UP) is a separate small network on the shared input. The loss is the cross-entropy of $P(k)$ for every task.
# **Nothing is trained on P(UP) itself: it has no label.** The cap is what makes it a state of preference: without it,
# "UP" and "not UP" could change places. Here $\alpha_k = c \cdot$ (positive rate of $k$), $c$ in 0.1 to 0.5 as the
# paper recommends.
#
# ## 2. Where the latent state comes from
#
# Section 3.1 of the paper describes three situations. The next cell computes them for two tasks, P(like|UP) =
# P(click|UP) = 0.4, both P(k|¬UP) = 0.02, and P(UP) = 0.5. The bars show the negative gradient of the loss with
# respect to the logit of P(UP): in which direction, and how strongly, a row of this kind pulls it.

# %%
situations = {"like, no click": (1.0, 0.0), "nothing": (0.0, 0.0), "click, no like": (0.0, 1.0), "both": (1.0, 1.0)}
pulls = np.zeros((len(situations), 2))
for row, labels in enumerate(situations.values()):
    for task in range(2):
        u = tf.Variable([[0.0]])
        with tf.GradientTape() as tape:
            a = tf.math.log([[0.4 / 0.6, 0.4 / 0.6]])
            b = tf.zeros((1, 2))  # σ(0) = 1/2 of a cap of 0.04
            logits = capped_probability(a, b, u, alphas=(0.04, 0.04))["logits"]
            loss = tf.nn.sigmoid_cross_entropy_with_logits([[labels[task]]], logits[:, task : task + 1])
        pulls[row, task] = -tape.gradient(loss, u).numpy()[0, 0]

figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
place = np.arange(len(situations))
for task, (name, shift) in enumerate((("by the task like", -0.2), ("by the task click", 0.2))):
    axis.bar(place + shift, pulls[:, task], 0.4, label=name)
axis.plot(place, pulls.sum(axis=1), "kD", label="both together")
axis.axhline(0, color="grey", linewidth=0.8)
axis.set_xticks(place, situations)
axis.set(ylabel="pull on the logit of P(UP)", title="What a row does to P(UP)")
axis.legend()
plt.show()

# %% [markdown]
# A like pulls up, and the missing click pulls down by less: the row as a whole says "preferred". Nothing at all pulls
# down. So P(UP) learns from *any* behaviour, and a task's negatives no longer count as dislike where another behaviour
# was shown. The paper calls the third situation a game.
#
# ## 3. A world in which the story holds
#
# The simulator draws a preference for each exposure and then behaviours by eq 1, with habits that differ from user to
# user, so this world is **favourable to DLEN by construction**. The table shows, by the number of positive behaviours
# of a row, how many rows were truly preferred. `like` alone marks few of them.

# %%
world = simulate.World(rows=24_000, days=4, seed=0)
simulate.write(world, "data")
train_days, test_day = ["20240101", "20240102", "20240103"], "20240104"
features = (  # some of the 56, so that training takes seconds
    "user_id", "user_topics", "watched", "liked", "long_viewed", "video_id", "author_id", "topics", "duration_s", "tab",
    "user_click_rate", "user_long_view_rate", "user_like_rate", "video_click_rate", "video_long_view_rate",
    "user_topic_impressions", "user_topic_click_rate", "user_topic_long_view_rate", "user_topic_like_rate",
)


def trained(**changes):
    """A small MMOE-DLEN, trained, and its predictions of the next day."""
    parts = {"trunk": MMOE(experts=4, units=(64, 32)), "head": DLEN(latent_units=(64, 32), **changes)}
    config = Config("dlen", ModelConfig(**parts, tower_units=(32,), features=features),
                    TrainConfig(epochs=2, batch_size=256, embedding_learning_rate=0.1))
    job = jobs.start(config, "data", train_days)
    passes.fit(job, train_days)
    return job, evaluation.predict(evaluation.scorer(job.network, job.read_out), job.schema, "data", test_day)


job, predictions = trained(alpha=0.3)
schema = job.schema

# %%
truth = truth_at("data", predictions.keys["time"])
count = evaluation.behaviours(predictions, schema)
like = predictions.labels[:, schema.task_names.index("like")]
preferred = truth["preferred"] == 1
print(f"{preferred.mean():.1%} of the exposures were preferred, and {like[preferred].mean():.1%} of these liked")
Markdown(markdown(
    ["positive behaviours", "rows", "truly preferred", "mean P(UP) of the model"],
    [[str(n), f"{(count == n).sum():,}", f"{preferred[count == n].mean():.1%}",
      f"{predictions.p_up[count == n].mean():.3f}"] for n in np.unique(count)],
))

# %% [markdown]
# The model predicts before any behaviour is seen, so its P(UP) cannot be 1 where three behaviours followed; what
# matters is that it rises down the table.
#
# ## 4. The cap, seen
#
# The histograms show P(k|UP) and P(k|¬UP) of every row of the next day, for each task. The dashed line is the cap
# $\alpha_k$: all of the orange lies to its left, by eq 10. Where orange piles up at the line, the cap holds it back:
# without the cap, the network would explain some of these behaviours without preference. Look at the distance between
# blue and orange.

# %%
parts = [job.network(features, training=False) for features, _ in data.read("data", schema, [test_day], 4096)]
given_up = np.concatenate([tf.sigmoid(part["preferred"]) for part in parts])
given_not_up = np.exp(np.concatenate([part["not_preferred"] for part in parts]))
alphas = job.network.get_layer("capped_head").alphas

figure, axes = plt.subplots(2, 3, figsize=(11, 5), layout="constrained", sharex=True)
bins = np.geomspace(1e-4, 1, 60)
for k, (task, axis) in enumerate(zip(schema.task_names, axes.flat, strict=True)):
    axis.hist(given_up[:, k], bins, alpha=0.7, label="P(k|UP), eq 9")
    axis.hist(given_not_up[:, k], bins, alpha=0.7, label="P(k|¬UP), eq 10")
    axis.axvline(alphas[k], color="black", linestyle="--", linewidth=1, label="cap α")
    axis.set(xscale="log", title=f"{task}, α = {alphas[k]:.3f}", xlabel="probability", ylabel="rows")
axes[0, 0].legend(fontsize=8)
plt.show()

# %% [markdown]
# ## 5. Is it the preference?
#
# The left picture shows P(UP) against the true one, by tenths of the rows; the right one shows its distribution. The
# model finds the order well. It finds the scale less well, and need not find it: with a small cap P(k) is nearly
# P(k|UP) · P(UP), and half the one with twice the other gives the same likelihood. So judge P(UP) by its order.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
tenths = np.array_split(np.argsort(truth["p_up"]), 10)
left.plot([truth["p_up"][t].mean() for t in tenths], [predictions.p_up[t].mean() for t in tenths], marker="o")
left.plot([0, 1], [0, 1], color="grey", linestyle=":")
left.set(xlabel="true P(UP) (means of tenths)", ylabel="P(UP) of the model", title="P(UP), next day")
right.hist(truth["p_up"], 30, (0, 1), alpha=0.7, label="true")
right.hist(predictions.p_up, 30, (0, 1), alpha=0.7, label="model")
right.set(xlabel="P(UP)", ylabel="rows", title="Distribution over rows")
right.legend()
plt.show()
Markdown(table({"MMOE-DLEN, c = 0.3": recovery(predictions, schema, truth)}))

# %% [markdown]
# `AUC P(UP)` is against the preference that was drawn, which only a simulator knows; the oracle ranks by the true
# P(UP).
#
# ## 6. The AUC that a log allows is not a measure of quality
#
# On real logs there is only section 3.3 of the paper: the AUC of P(UP) against "any positive behaviour" (`user_favor`
# in `metrics.json`). The paper calls it necessary and not sufficient: if it is near 0.5, P(UP) has not converged; if
# it is high, that proves nothing. Any score that finds active users has a high AUC too:

# %%
any_positive = count > 0
scores = {"P(UP)": predictions.p_up}
scores |= {f"P({task})": predictions.probabilities[:, k] for k, task in enumerate(schema.task_names)}
Markdown(markdown(
    ["score", "AUC against any positive behaviour", "AUC against the true preference"],
    [[name, f"{auc(any_positive, score):.4f}", f"{auc(preferred, score):.4f}"] for name, score in scores.items()],
))

# %% [markdown]
# Look at `P(long_view)`: it is not a latent state, but it comes close to P(UP) in the first column. Only the second
# column is about preference, and no log has it. **Never report `user_favor` as the quality of a model.**
#
# ## 7. What α does
#
# The same network without a cap (`alpha_constant=1`):

# %%
results, latent = {}, {}
for name, (_, predicted) in {"c = 0.3": (job, predictions), "no cap": trained(alpha_constant=1.0)}.items():
    results[name], latent[name] = recovery(predicted, schema, truth), predicted.p_up
Markdown(markdown(
    ["cap", "mean P(UP)", "AUC of P(UP), true preference", "share of the way", "mean distance of P(k) from the truth",
     "AUC, any positive"],
    [[name, f"{latent[name].mean():.3f}", f"{r['p_up']:.4f}", f"{r['way']:.1%}", f"{r['mean_error']:.4f}",
      f"{auc(any_positive, latent[name]):.4f}"] for name, r in results.items()],
))

# %% [markdown]
# (The true mean P(UP) is printed below.) Without a cap nothing ties UP to preference: either state may explain the
# frequent behaviours, and P(UP) loses its order and its meaning. The tasks hardly mind, since either way their
# P(k) can be right. Differences of a few percent between rows are within what another seed would give, so do not read
# them: at this size the cap buys the *meaning* of P(UP), not accuracy of the tasks.
#
# ## 8. What is served
#
# The training probability has a part for "not preferred", which a feed does not want to rank by. Eq 4 leaves it out:
# $P(k, UP) = P(k|UP)\,P(UP)$, the scores `<task>_up` beside `p_up`. They are below P(k) and are scores, not calibrated
# probabilities. `tuning_and_fusion.ipynb` makes one score out of several.

# %%
print(f"true mean P(UP): {truth['p_up'].mean():.3f}")
Markdown(markdown(
    ["task", "mean P(k), eq 1", "mean P(k, UP), eq 4", "observed rate"],
    [[task, f"{predictions.probabilities[:, k].mean():.4f}", f"{predictions.serving[f'{task}_up'].mean():.4f}",
      f"{predictions.labels[:, k].mean():.4f}"] for k, task in enumerate(schema.task_names)],
))
