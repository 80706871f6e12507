"""A trunk that nobody knows: 15 lines in a file of its own, found everywhere without an edit elsewhere."""

import dataclasses
import json

import pytest

from dlen_cam2 import config_file
from dlen_cam2.configs import spaces
from dlen_cam2.experiments import zoo
from dlen_cam2.layers import Experts
from dlen_cam2.models.parts import Trunk
from dlen_cam2.parts import option, trunk
from dlen_cam2.utils.errors import UserError
from tests.support import contract
from tests.support.builders import command


@trunk("separate")
@dataclasses.dataclass
class Separate(Trunk):
    """A network of each task's own; all of them read the row.

    Attributes:
        units: layer sizes; ReLU after each.
    """

    units: tuple[int, ...] = option((64, 32), least=1, some=True, search=["32", "64 32"])

    def __call__(self, x, context):
        return Experts(context.tasks, self.units, per_task=True, name="separate")(x)


# The trunk ends here.


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return contract.log(tmp_path_factory.mktemp("separate"))


SMALL = Separate(units=(8,))


def test_checks_and_tuner_find_it(tmp_path):
    contract.is_a_configuration(SMALL, tmp_path)
    with pytest.raises(UserError, match=r"config.model.trunk.units must be .* at least 1. Received: \(0,\)"):
        contract.is_a_configuration(Separate(units=(0,)), tmp_path)

    class Chooser:
        def Choice(self, key, values):  # noqa: N802  keras-tuner's name
            return values[0]

    assert spaces.named(contract.config(SMALL), "trunk")(Chooser()) == {"model.trunk.units": (32,)}
    text = config_file.source(contract.config(SMALL), "found")
    assert "Separate(" in text and f"from {__name__} import Separate" in text


@pytest.mark.slow
def test_the_command_line_finds_it(log, tmp_path):
    done = command(
        "dlen_cam2.cli.train", "--config=dlen_cam2/configs/own/mmoe.py", "--config.model.trunk=separate",
        "--config.model.trunk.units=(8,)", "--config.train.epochs=1", "--config.train.bootstrap=0",
        f"--data_dir={log}", f"--model_dir={tmp_path / 'm'}", f"--train_days={contract.DAYS[0]}",
        f"--eval_days={contract.DAYS[1]}",
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "m" / "config.json").read_text())
    assert stored["model"]["trunk"] == {"kind": "separate", "units": [8]}
    assert "separate trunk" in (tmp_path / "m" / "report.md").read_text()
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())[contract.DAYS[1]]
    assert set(metrics["watch"]) >= {"mae", "rank_correlation"} and metrics["click"]["rows"] == 120
    unknown = command(
        "dlen_cam2.cli.train", "--config=dlen_cam2/configs/own/mmoe.py", "--config.model.trunk=sepatate",
        f"--data_dir={log}", f"--model_dir={tmp_path / 'n'}", "--train_days=20220425", "--eval_days=20220426",
    )
    assert unknown.returncode == 2 and "'separate'" in unknown.stderr


@pytest.mark.slow
def test_grow_and_balancing_find_it(log, tmp_path):
    job = contract.a_life(contract.config(SMALL, without=contract.NEW), log, tmp_path / "m")
    kernel = next(w for w in job.network.weights if w.name == "separate/kernel_0:0")
    assert kernel.shape[1] == len(job.schema.tasks)
    # No task shares a weight of it with another, so balancing leaves it alone.
    masks = zip(job.network.trainable_weights, contract.shared_weights(job.network), strict=True)
    shared = {weight.name for weight, mask in masks if mask is not None}
    assert not any(name.startswith("separate") for name in shared) and any(n.startswith("embeddings") for n in shared)


def test_it_builds_with_every_head_and_with_branches(log):
    from dlen_cam2 import data

    contract.builds_with(SMALL, data.fit(log, contract.SCHEMA, contract.DAYS[:1]))


def test_a_second_part_of_the_name_is_refused():
    with pytest.raises(UserError, match="the name of a trunk must be unique. Received: 'separate'"):
        @trunk("separate")
        @dataclasses.dataclass
        class Other(Trunk):
            pass


def test_tables_have_it():
    assert zoo.networks()["separate"] == ("separate", "logistic")
    row = zoo.network(contract.config(contract.small("trunk", "mmoe")), "separate")
    assert row.configs[""].model.trunk == Separate(units=(8, 6))  # of the table's configuration
