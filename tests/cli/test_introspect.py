"""dlen_cam2 introspect, as a user types it."""

import pytest
import tensorflow as tf

from dlen_cam2 import data
from dlen_cam2.evaluation import introspection
from dlen_cam2.evaluation.introspection_report import tables
from dlen_cam2.models import build
from dlen_cam2.schema import pbtxt
from dlen_cam2.training import model_directory
from pipelines import simulate
from tests.support.builders import command, tiny_config

DAY = "20240103"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A small simulated data set."""
    directory = tmp_path_factory.mktemp("log") / "data"
    simulate.write(simulate.World(rows=900, seed=1, days=3), str(directory))
    return directory


@pytest.fixture(scope="module")
def model(log, tmp_path_factory):
    """A function that writes a model of the data set that was not trained: its directory."""
    schema = data.fit(log, pbtxt.load(log), ["20240101"])

    def write(**of):
        directory = tmp_path_factory.mktemp("model")
        config = tiny_config(**of)
        tf.keras.utils.set_random_seed(7)
        network = build(config.model, schema)
        model_directory.save(directory, config, schema, {}, tf.train.Checkpoint(network=network))
        return directory

    return write


def run(*flags):
    return command("dlen_cam2.cli.introspect", *flags)


@pytest.mark.slow
def test_the_command(log, model, tmp_path, drawn):
    directory, output = model(trunk="ple", head="dlen"), tmp_path / "out"
    done = run(directory, f"--data_dir={log}", f"--day={DAY}", f"--output={output}", "--batch_size=100")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in output.iterdir()) == ["gates.png", "inspect.html", "inspect.md", "latent.png"]
    text = (output / "inspect.md").read_text()
    assert "# tiny: ple_dlen, 20240103" in text and "](gates.png)" in text and "](latent.png)" in text
    rows = data.statistics(log)["days"][DAY]["rows"]
    loaded = model_directory.load(directory)
    found = introspection.inspect(loaded.network, loaded.read_out, data.read(log, loaded.schema, [DAY], 4096))
    assert found.rows == rows and f"over {rows:,} rows" in text
    # Batches of 100 rows and one of all give the same tables.
    assert tables(found) in text and tables(found) in done.stdout

    bottom = model(trunk="shared_bottom")
    again = run(f"--model_dir={bottom}", f"--data_dir={log}", f"--day={DAY}", f"--output={output}")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "nothing to inspect" in again.stdout and {p.name for p in output.iterdir()} == {"inspect.md", "inspect.html"}


@pytest.mark.parametrize("wrong", ["model", "day", "feature", "output", "nothing"])
def test_bad_input_is_one_message(log, model, tmp_path, wrong):
    directory, output, day, logs, status = model(), tmp_path / "out", DAY, log, 1
    if wrong == "model":
        directory, message = tmp_path, f"{tmp_path} holds no trained model"
    elif wrong == "day":
        day, message = "20250101", "has no day '20250101'"
    elif wrong == "feature":
        logs, schema = tmp_path / "other", pbtxt.load(log)
        logs.mkdir()
        gone = schema.features[-1].name
        pbtxt.save(schema.select(without=[gone]), logs)
        message = f"{logs} must have the columns that the model in {directory} reads. Received: no ['{gone}']"
    elif wrong == "output":
        output, message = log, "is not empty and was not written by this command"
    else:
        directory, message = "", "model_dir must be given"
    given = [directory] if directory else []
    done = run(*given, f"--data_dir={logs}", f"--day={day}", f"--output={output}")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == status and len(errors) == 1 and message in errors[0], done.stderr[-2000:]
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
