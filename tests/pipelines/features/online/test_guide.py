"""The guide's program runs as it stands, and its order is that of the served model."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from dlen_cam2 import data, serving
from dlen_cam2.config import Config, ModelConfig, TrainConfig
from dlen_cam2.models import SharedBottom, build
from dlen_cam2.schema import pbtxt
from dlen_cam2.training.model_directory import TrainedModel
from pipelines import simulate

PAGE = pathlib.Path(__file__).parents[4] / "docs" / "guides" / "online_features.md"


@pytest.mark.slow
def test_the_program_ranks_ids(tmp_path, monkeypatch, capsys):
    """Ids in, order out, through a served model: an untrained one, since only its inputs matter here."""
    monkeypatch.chdir(tmp_path)
    simulate.write(simulate.World(rows=3000, seed=0), "quickstart/data")
    tf.keras.utils.set_random_seed(0)
    schema = data.fit("quickstart/data", pbtxt.load("quickstart/data"), ["20240101"])
    config = ModelConfig(SharedBottom(units=(8,)), tower_units=(4,))
    network = build(config, schema)
    served = serving.export(TrainedModel(Config("guide", config, TrainConfig()), schema, {}, network, []),
                            tmp_path / "quickstart" / "served" / "mmoe_dlen")
    assert served.name == "1"
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    capsys.readouterr()
    exec(compile(program, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    before, after = (eval(line.split(": ")[1]) for line in said.splitlines())
    assert len(set(before)) == len(set(after)) == 5
    # The store goes on: the exposure is still there, and counts.
    with names["OnlineFeatures"].open("quickstart/data", store=names["Directory"]("quickstart/online")) as online:
        videos = {name: values[:1] for name, values in names["videos"].items()}
        found = online.features(names["user_id"], videos, {"tab": 0}, names["now"] + 5_000)
        fresh = names["OnlineFeatures"].open("quickstart/data")
        earlier = fresh.features(names["user_id"], videos, {"tab": 0}, names["now"] + 5_000)
    assert found["user_impressions"] == earlier["user_impressions"] + 1
    assert np.all(found["watched"][0, 1:] == earlier["watched"][0, :-1]) and found["watched"][0, 0] == before[0]
