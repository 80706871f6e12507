# %% [markdown]
# # A first ranker in ten minutes
#
# A feed shows a video, and the user clicks, watches, likes, comments, follows, forwards, or does nothing. A ranker
# predicts the probability of each of these for every candidate. Here we make a log, look at it, train one network for
# all six behaviours, read what it learned, and ask the exported model for scores.
#
# Everything is small so that it runs on a laptop's processor: the numbers are noisy, and the intervals beside
# them say how noisy.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, Markdown

from dlen_cam2 import data, evaluation, serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.evaluation import report
from dlen_cam2.evaluation.truth import recovery, table, truth_at
from dlen_cam2.models import MMOE
from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log, versions
from dlen_cam2.training import model_directory, runs, train_request
from dlen_cam2.utils.markdown import markdown
from pipelines import simulate

# %% [markdown]
# ## 1. A log
#
# The simulator draws users with tastes and habits, videos with topics and popularity, and a logging policy that shows
# popular videos more often. A tenth of the exposures is uniformly random; they get splits of their own,
# `DAY_random`, to measure a ranker without the policy's habits.

# %%
world = simulate.World(rows=20_000, days=4, seed=0)
simulate.write(world, "data")
schema = pbtxt.load("data")
Markdown(markdown(
    ["group", "features"], [[group, ", ".join(f.name for f in found)] for group, found in schema.groups.items()]
))

# %% [markdown]
# Groups are named by whom a feature describes and by its cause. The counters (`video_click_rate` and the like) are
# *point in time*: a row knows only what happened strictly before it. Look at how rare most behaviours are,
# and that the logged days are richer in all of them than the random exposures, since the policy chose.

# %%
counts = data.statistics("data")["days"]


def share(task: str, random: bool) -> float:
    """Positives by rows of all days, of random or of logged exposures."""
    found = [day["tasks"][task] for name, day in counts.items() if name.endswith("_random") == random]
    return sum(f["positives"] for f in found) / sum(f["rows"] for f in found)


place = np.arange(len(schema.tasks))
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.bar(place - 0.2, [share(task, False) for task in schema.task_names], 0.4, label="logged by the policy")
axis.bar(place + 0.2, [share(task, True) for task in schema.task_names], 0.4, label="uniformly random")
axis.set_xticks(place, schema.task_names)
axis.set(ylabel="share of exposures", title="How often each behaviour happens")
axis.legend()
plt.show()

# %% [markdown]
# A row, as the reader gives it to a network: indices and normalised numbers by group, and labels. What depends on data
# (vocabularies, means, rates) is fitted on the training days alone.

# %%
train_days, test_days = [f"2024010{day}" for day in range(1, 4)], ["20240104", "20240104_random"]
fitted = data.fit("data", schema, train_days)
features, labels = next(iter(data.read("data", fitted, ["20240104"], batch_size=4)))
print("video_click_rate, normalised log-odds:", features["item_statistical"]["video_click_rate"].numpy())
print("topics, 0 is padding:", features["item_content"]["topics"].numpy().tolist())
print("click:", labels["click"].numpy())

# %% [markdown]
# ## 2. A network for six tasks
#
# MMOE (Ma et al., 2018) has experts $f_i$ that all tasks share, and for each task $k$ a gate that weighs them by the
# row, and a tower $h^k$ on the mixture:
#
# $$f^k(x) = \sum_i g^k_i(x)\, f_i(x), \qquad g^k(x) = \mathrm{softmax}(W_{gk}\, x), \qquad y_k = h^k(f^k(x)).$$
#
# A `Config` says what is built and how it is trained; every field is documented in `dlen_cam2/config.py`. On the
# command line the same is `python -m dlen_cam2 train --config=FILE --data_dir=data --model_dir=mmoe …`.

# %%
config = Config(
    name="first_ranker",
    model=ModelConfig(trunk=MMOE(experts=4, units=(64, 32)), tower_units=(32,)),
    train=TrainConfig(epochs=2, batch_size=256, embedding_learning_rate=0.1, bootstrap=100),
)
metrics = runs.train(train_request.once(config, "data", "mmoe", ",".join(train_days), ",".join(test_days)))

# %% [markdown]
# ## 3. What it learned
#
# Of each task on a day that it was not trained on:
#
# - **AUC**: the share of (positive, negative) pairs in the right order; 0.5 is chance. **GAUC** counts pairs within a
#   user only, which is what a ranking of one user's candidates needs.
# - **NE**, normalised entropy: cross-entropy over that of the constant base rate. Below 1 is better than the constant.
# - **Calibration**: predicted over observed positives. Fusion multiplies scores, so it should be near 1.
#
# Brackets are 95% intervals, bootstrapped over users. Look at their widths before you compare two numbers: `follow` has
# few positives here.

# %%
Markdown(report.table(metrics))

# %% [markdown]
# The same as a picture; `mmoe/report.md` has both, and is what `dlen_cam2 train` leaves behind.

# %%
Image("mmoe/report.png")

# %% [markdown]
# ## 4. Serve it
#
# `export` writes a SavedModel for TensorFlow Serving. Raw values go in: ids, lists and numbers as they are in the log,
# for the indexing is inside the model. `versions.load` restores it knowing nothing of how it was built, as a server
# does. The signature `rank` takes one row of the user and N rows of candidates, so that the user's part is
# computed once.

# %%
model = model_directory.load("mmoe")
version = serving.export(model, "served/ranker")
server = versions.load(version)
rows = request_log.first_rows("data", "20240104", schema, 50)
_, distinct = np.unique(rows["video_id"], return_index=True)
request = {f.name: rows[f.name][:1] if f.side == "user" else rows[f.name][distinct] for f in schema.features}
answer = server.run("rank", request)
print(f"version {version.name}, signatures {sorted(server.signatures)}")

# %% [markdown]
# `fused` is one score to rank by, at first the product of all tasks' probabilities (`tuning_and_fusion.ipynb` searches
# better weights), and `order` is the ranking. Of the videos in the day's first 50 rows, the user of the first row would
# see these five:

# %%
first = answer["order"][:5]
Markdown(markdown(
    ["place", "video", *schema.task_names, "fused"],
    [[str(place + 1), str(request["video_id"][row]), *(f"{answer[task][row]:.3f}" for task in schema.task_names),
      f"{answer['fused'][row]:.2e}"] for place, row in enumerate(first)],
))

# %% [markdown]
# The simulator knows each probability, so here, and only here, we can see how far off the predictions are. Points
# are the means of tenths of the rows in order of the prediction: on the diagonal, a group's mean is right. Single rows
# are further off than their group, as the table of errors says, the mean of |p̂-p| over rows.

# %%
predictions = evaluation.predict(evaluation.scorer(model.network, model.read_out), model.schema, "data", "20240104")
truth = truth_at("data", predictions.keys["time"])
figure, axis = plt.subplots(figsize=(5, 4.6), layout="constrained")
for k, task in enumerate(schema.task_names):
    tenths = np.array_split(np.argsort(predictions.probabilities[:, k]), 10)
    axis.plot([predictions.probabilities[t, k].mean() for t in tenths], [truth[f"p_{task}"][t].mean() for t in tenths],
              marker="o", markersize=3, label=task)
axis.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
axis.set(xlabel="predicted probability", ylabel="true probability", title="Predicted and true, next day", xscale="log",
         yscale="log", xlim=(0.005, 1), ylim=(0.005, 1))
axis.legend()
plt.show()
Markdown(table({"first_ranker": recovery(predictions, model.schema, truth)}))

# %% [markdown]
# **Next**: `dlen.ipynb` and `cam2.ipynb` for the two papers, `your_own_logs.ipynb` for your data.
