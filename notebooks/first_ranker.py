# %% [markdown]
# # A first ranker in ten minutes
#
# A feed shows a video, and the user clicks, watches, likes, comments, follows, forwards, or does nothing. A ranker
# predicts the probability of each of these for every candidate. In this notebook you make a log, look at it, train one
# network for all six behaviours, measure what it learned, and ask the exported model for scores.
#
# Everything is small so that it runs on a laptop's processor. The numbers are therefore noisy, and the intervals
# beside them say how noisy.

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
# popular videos more often. A tenth of the exposures are uniformly random. They are stored in separate splits,
# `DAY_random`, so that a ranker can be measured without the influence of the policy.

# %%
world = simulate.World(rows=20_000, days=4, seed=0)
simulate.write(world, "data")
schema = pbtxt.load("data")
Markdown(markdown(
    ["group", "features"], [[group, ", ".join(f.name for f in found)] for group, found in schema.groups.items()]
))

# %% [markdown]
# A group is named after the side that its features describe (user, item) and after their cause. The counters
# (`video_click_rate` and the like) are *point in time*: they count only what happened strictly before the row. The
# picture shows how rare most behaviours are. All of them are more frequent in the logged days than in the random
# exposures, because the policy chose the logged ones.

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
# This is how the reader passes rows to a network: indices and normalised numbers by group, and labels. Everything that
# depends on the data (vocabularies, means, rates) is fitted on the training days alone.

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
# MMOE (Ma et al., 2018) has experts $f_i$ that all tasks share. Each task $k$ has a gate that weights the experts row
# by row, and a tower $h^k$ on the mixture:
#
# $$f^k(x) = \sum_i g^k_i(x)\, f_i(x), \qquad g^k(x) = \mathrm{softmax}(W_{gk}\, x), \qquad y_k = h^k(f^k(x)).$$
#
# A `Config` says what is built and how it is trained; every field is documented in `dlen_cam2/config.py`. The same on
# the command line is `dlen_cam2 train --config=FILE --data_dir=data --model_dir=mmoe …`.

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
# The table has these metrics for each task, on days that the model was not trained on:
#
# - **AUC**: the share of (positive, negative) pairs in the right order; 0.5 is chance. **GAUC** counts pairs within a
#   user only, which is what a ranking of one user's candidates needs.
# - **NE**, normalized entropy: the log loss divided by that of the constant base rate. Below 1 is better than the
#   constant.
# - **Calibration**: predicted over observed positives. Fusion multiplies scores, so it should be near 1.
#
# Brackets are 95% intervals, bootstrapped over users. Look at their widths before you compare two numbers: `follow` has
# few positives here.

# %%
Markdown(report.table(metrics))

# %% [markdown]
# The same metrics as a picture. `dlen_cam2 train` writes both to `mmoe/report.md`.

# %%
Image("mmoe/report.png")

# %% [markdown]
# ## 4. Serve it
#
# `export` writes a SavedModel for TensorFlow Serving. It takes raw values: ids, lists and numbers as they are in the
# log, because the indexing is inside the model. `versions.load` restores it as a server does, without the code that
# built the network. The signature `rank` takes one row of the user and N rows of candidates, so that the user's part
# is computed once.

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
# `fused` is one score to rank by, by default the product of all tasks' probabilities (`tuning_and_fusion.ipynb`
# searches for better weights), and `order` is the ranking. Of the videos in the day's first 50 rows, the user of the
# first row would see these five:

# %%
first = answer["order"][:5]
Markdown(markdown(
    ["place", "video", *schema.task_names, "fused"],
    [[str(place + 1), str(request["video_id"][row]), *(f"{answer[task][row]:.3f}" for task in schema.task_names),
      f"{answer['fused'][row]:.2e}"] for place, row in enumerate(first)],
))

# %% [markdown]
# The simulator knows each probability, so here, and only here, we can see how far off the predictions are. The rows
# are sorted by the prediction and divided into tenths; each point is the mean of a tenth. If it is on the diagonal,
# the mean of the group is right. Single rows are further off than their group, as the table of errors shows: it has
# the mean of |p̂-p| over rows.

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
# **Next**: `dlen.ipynb` and `cam2.ipynb` explain the two papers, and `your_own_logs.ipynb` shows how to use your own
# data.
