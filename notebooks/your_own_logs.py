# %% [markdown]
# # Your own logs
#
# This notebook goes from a file of exposures to a served model: a schema is proposed and corrected, the log becomes a
# data set and is checked, a network is trained and exported, and a server ranks candidates. The log here is generated
# by the notebook; replace it with yours. Parquet (`.parquet`), CSV (`.csv`) and JSON lines (`.jsonl`) are read the
# same way.

# %%
import csv
import dataclasses
import json
import urllib.request

import numpy as np
from IPython.display import Markdown

from dlen_cam2 import serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.evaluation import report
from dlen_cam2.models import MMOE
from dlen_cam2.schema import pbtxt
from dlen_cam2.serving import request_log
from dlen_cam2.serving.testing_server import grpc_server, rest
from dlen_cam2.training import model_directory, runs, train_request
from dlen_cam2.utils.markdown import markdown
from pipelines import check
from pipelines.from_logs import Roles, convert, propose

# %% [markdown]
# ## 1. A log
#
# Each row is an exposure: when, who, which item, what was known, and what the user did. The items are cooking videos.
# A user likes some kinds of dishes and says so in his profile (`favourites`). He clicks these more often, watches them
# longer, and sometimes sends a gift.

# %%
rng = np.random.default_rng(0)
rows, users, videos = 9_000, 150, 120
dishes = np.array(["soup", "bread", "cake", "curry", "salad", "noodles"])
tastes = rng.random((users, len(dishes))) < 0.35
cities = rng.choice(["Bonn", "Lyon", "Porto"], users)
dish, minutes = rng.integers(0, len(dishes), videos), rng.lognormal(1, 0.5, videos)
user, video = rng.integers(0, users, rows), rng.integers(0, videos, rows)
fits = tastes[user, dish[video]]
click = rng.random(rows) < np.where(fits, 0.6, 0.1)
watched = np.where(click, rng.beta(np.where(fits, 4, 2), 2), 0.0)
start = 1_704_067_200_000  # 2024-01-01, in milliseconds
times = np.sort(rng.integers(start, start + 4 * 86_400_000, rows))

with open("log.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["ts", "uid", "vid", "city", "favourites", "dishes", "minutes", "completion", "is_click",
                     "is_finish", "gift"])
    for i in range(rows):
        writer.writerow([
            times[i], user[i], video[i], cities[user[i]], json.dumps(dishes[tastes[user[i]]].tolist()),
            json.dumps([dishes[dish[video[i]]], "cooking"]), f"{minutes[video[i]]:.2f}", f"{watched[i]:.3f}",
            int(click[i]), int(watched[i] > 0.9), int(click[i] and rng.random() < 0.1),
        ])
print(open("log.csv", encoding="utf-8").read(400))

# %% [markdown]
# ## 2. A schema, proposed
#
# `propose` reads a sample and says how it interprets each column, and why. Its rules are simple, so read every line.
# On the command line: `python -m pipelines.from_logs --suggest_schema …`.

# %%
roles = Roles(time="ts", user="uid", item="vid")
schema, why = propose("log.csv", roles)
Markdown(markdown(["column", "taken for"], [[name, reason] for name, reason in why.items()]))

# %% [markdown]
# `is_click` and `is_finish` were recognised as feedback by their names. `gift` is not a usual name for feedback, but
# it is 1 only where `is_click` is 1. It is therefore feedback too, and its mask says that it can only follow a click.
# One line is wrong, and only somebody who knows the log can see it: `completion` is how far the user watched *in this
# exposure*. As a feature it would give the answer away.
#
# Suppose that we had overlooked it. `check` finds what can be found without knowing the log.

# %%
convert("log.csv", schema, roles, "uncorrected")
for finding in check.check("uncorrected").findings:
    print(finding.line)

# %% [markdown]
# The line about leaks names a feature that predicts a task too well on its own. If we had trained with it, the AUC
# would have been excellent and the model useless, because when it is served nobody has watched anything yet.
#
# ## 3. Corrected
#
# A schema is a Python value; `pbtxt.dumps` writes it as the text that the commands read, which you can edit instead.
# One more thing that only you know: `favourites` and `dishes` have the same kind of values. If both share one
# embedding table, the network gets the product of their vectors, which tells it whether a video fits a profile.

# %%
schema = dataclasses.replace(
    schema,
    features=tuple(
        dataclasses.replace(f, table="dishes") if f.name == "favourites" else f
        for f in schema.features if f.name != "completion"
    ),
    targets=("completion",),  # kept beside the labels, and seen by no network
)
text = pbtxt.dumps(schema)
print(text[text.index('name: "gift"') - 12 :][:260])

# %%
statistics = convert("log.csv", schema, roles, "data")
for finding in check.check("data").findings:
    print(finding.line)

# %% [markdown]
# ## 4. Train and measure
#
# The network is trained on three days and measured on the fourth. Vocabularies (cities, dishes, ids) are learned from
# the training days. `gift` is rare: look at its interval before you believe its AUC. A task that follows another has
# two lines: one among the clicks, and one in its entire space, over all exposures.

# %%
days = sorted(statistics["days"])
config = Config(
    name="cooking",
    model=ModelConfig(trunk=MMOE(experts=3, units=(32, 16)), tower_units=(16,)),
    train=TrainConfig(epochs=3, batch_size=128, embedding_learning_rate=0.1, bootstrap=100),
)
metrics = runs.train(train_request.once(config, "data", "model", ",".join(days[:-1]), days[-1]))
Markdown(report.table(metrics))

# %% [markdown]
# ## 5. Serve
#
# Rows of the last day are exported as warm-up requests. The local server speaks TensorFlow Serving's protocol. On the
# command line it is `dlen_cam2 serve --served=served/cooking --name=cooking`; in production you run the image
# `tensorflow/serving` on the same directory.

# %%
model = model_directory.load("model")
candidates = request_log.first_rows("data", days[-1], model.schema, 8)
serving.export(model, "served/cooking", rows=candidates)
served = grpc_server.Model("cooking", "served/cooking")
served.poll()
web = rest.start(served, port=0)
address = f"http://127.0.0.1:{web.server_port}/v1/models/cooking"

# %% [markdown]
# A request to the signature `rank` has one row of the user's features and one row for each candidate, with raw values,
# as JSON.

# %%
inputs = {f.name: candidates[f.name][:1] if f.side == "user" else candidates[f.name] for f in model.schema.features}
body = {"signature_name": "rank", "inputs": request_log.as_json(inputs)}
with urllib.request.urlopen(f"{address}:predict", data=json.dumps(body).encode(), timeout=30) as response:
    outputs = json.load(response)["outputs"]
web.shutdown()

Markdown(markdown(
    ["place", "video", "dish", *model.schema.task_names],
    [[str(place + 1), str(inputs["vid"][row]), inputs["dishes"][row][0].decode(),
      *(f"{outputs[task][row]:.3f}" for task in model.schema.task_names)]
     for place, row in enumerate(outputs["order"][:5])],
))

# %% [markdown]
# The user's true tastes are known here. Videos that fit them should be near the top:

# %%
who = inputs["uid"][0]
print(f"user {who} likes: {', '.join(dishes[tastes[who]])}")

# %% [markdown]
# **Next**: the guides in `docs/guides` show how to add days to a data set (`--since`), train on from yesterday's model
# (`--continue_from`), calibrate, and release new versions of a served model.
