"""What is exported: versions, calibrated and fused scores, refusals, the command."""

import dataclasses

import numpy as np
import pytest

from dlen_cam2 import serving
from dlen_cam2.schema import Task, pbtxt
from dlen_cam2.serving import request_log, versions
from dlen_cam2.serving.calibration import Calibration
from dlen_cam2.serving.fusion import Fusion
from dlen_cam2.training import model_directory
from dlen_cam2.utils.errors import UserError
from tests.support.builders import command, numpy_sigmoid
from tests.support.jobs import DAY

pytestmark = pytest.mark.slow


def test_versions_count_up(served, tmp_path):
    model = model_directory.load(served[1])
    assert [serving.export(model, tmp_path / "out").name for _ in range(2)] == ["1", "2"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1", "2"]
    assert set(versions.load(tmp_path / "out" / "2").signatures) == {"serving_default", "raw", "rank"}


def test_a_file_in_the_place_of_the_versions_is_refused(served, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="must be a directory. Received: a file"):
        serving.export(model_directory.load(served[1]), tmp_path / "out")


# === What is served: calibrated, fused ===
def test_scores_are_calibrated_and_fused_by_what_was_given(served, rows, expected, tmp_path):
    model = model_directory.load(served[1])
    calibration = Calibration("platt", DAY, {"click": ((0.0, 1.0), (-1.0, 1.0))})  # σ(2 logit - 1)
    fusion = Fusion("product", {"click": 2.0, "like_up": 1.0}, floor=0.3)
    version = serving.export(model, tmp_path / "m", calibration=calibration, fusion=fusion)
    scores = versions.load(version).run("raw", {f.name: rows[f.name] for f in model.schema.features})
    click = expected["click"].astype(float)
    np.testing.assert_allclose(scores["click"], numpy_sigmoid(2 * np.log(click / (1 - click)) - 1), rtol=1e-4)
    for name in set(expected) - {"click"}:
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-5, atol=1e-7)
    held = scores["p_up"] < 0.3
    assert 0 < held.sum() < len(held)
    np.testing.assert_allclose(
        scores["fused"][~held], (scores["click"].astype(float) ** 2 * scores["like_up"])[~held], rtol=1e-4
    )
    assert scores["fused"][held].max() < scores["fused"][~held].min()


@pytest.mark.parametrize(("options", "message"), [
    ({"calibration": Calibration("platt", DAY, {"buy": ((0.0, 1.0), (0.0, 1.0))})}, r"Received: \['buy'\] as well"),
    ({"fusion": Fusion("sum", {"buy": 1.0})}, "buy"),
    ({"regress": "buy"}, r"regress needs a score. Received: 'buy'. Known: \['click'"),
    ({"causes": True}, "scores of causes need a model with causal branches"),
])
def test_what_the_model_cannot_serve_is_refused(served, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        serving.export(model_directory.load(served[1]), tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_a_task_may_not_have_another_scores_name(served, tmp_path):
    model = model_directory.load(served[1])
    schema = dataclasses.replace(model.schema, tasks=(Task("fused"), *model.schema.tasks[1:]))
    with pytest.raises(UserError, match=r"a task must not have the name of another score. Received: \['fused'\]"):
        serving.export(dataclasses.replace(model, schema=schema), tmp_path / "m")


# === The command ===
def test_export_command_with_everything(served, tmp_path):
    directory, model, _ = served
    Calibration("platt", DAY, {"click": ((0.0, 1.0), (-1.0, 1.0))}).save(tmp_path / "calibration.json")
    Fusion("sum", {"click": 1.0}).save(tmp_path / "fusion.json")
    flags = [
        f"--model_dir={model}", f"--output={tmp_path / 'ranker'}",
        f"--calibration={tmp_path / 'calibration.json'}", f"--fusion={tmp_path / 'fusion.json'}", "--classify",
        "--regress=fused", f"--data_dir={directory}", f"--day={DAY}",
    ]
    done = command("dlen_cam2.cli.export", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    said, after = done.stdout.splitlines()[-2:]
    assert said == f"SavedModel: {tmp_path / 'ranker' / '1'}"
    assert after == f"next: dlen_cam2 serve --served={tmp_path / 'ranker'} --name=ranker"
    loaded = versions.load(tmp_path / "ranker" / "1")
    logs = request_log.read(tmp_path / "ranker" / "1" / request_log.WARM_UP)
    assert {request_log.inputs(log)[0] for log in logs} == set(loaded.signatures)
    schema = pbtxt.load(directory)
    rows = request_log.first_rows(directory, DAY, schema, 1)
    for log in logs:
        signature, sent = request_log.inputs(log)
        scores = loaded.run(signature, sent)
        if signature in ("raw", "rank"):
            np.testing.assert_array_equal(sent["user_id"][:1], rows["user_id"])  # real rows
            np.testing.assert_allclose(scores["fused"], scores["click"], rtol=1e-5)  # a sum of one
        count = len(sent["video_id" if signature in ("raw", "rank") else next(iter(sent))])
        assert {len(values) for values in scores.values()} == {count}
    done = command("dlen_cam2.cli.export", *flags[:2], "--day=1")
    assert done.returncode == 1 and "--data_dir and --day must be given together" in done.stderr
