"""A day that is appended is the day of a full run."""

import shutil

import pytest

from dlen_cam2.data import manifest
from dlen_cam2.utils.errors import UserError
from pipelines import kuairand
from pipelines.options import Options
from pipelines.writer.shards import Form
from tests.support import kuairand_files as kf
from tests.support.kuairand_slice import hashes


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Generated logs of four days, two of them with random exposures, and their data set."""
    directory = tmp_path_factory.mktemp("full")
    source = kf.write(directory / "in", kf.generate(rows=150, seed=3))
    kuairand.convert(source, str(directory / "out"))
    return source, directory / "out"


@pytest.mark.slow
@pytest.mark.parametrize("since", ["20220421", "20220425", "20220426"])
def test_an_appended_day_is_that_of_a_full_run(full, tmp_path, since):
    source, whole = full
    days = list(manifest.statistics(whole)["days"])
    early = [d for d in days if d < since]
    # A log that ends the day before, and then the whole log.
    before = kf.generate(rows=150, seed=3)
    for name in kf.LOGS:
        before[name] = [row for row in before[name] if row["date"] < since]
    before = {name: rows for name, rows in before.items() if rows}
    kuairand.convert(kf.write(tmp_path / "in", before), str(tmp_path / "out"))
    kept = hashes(tmp_path / "out", early)
    statistics = kuairand.convert(source, str(tmp_path / "out"), Options(since=since))
    assert list(statistics["days"]) == days == list(manifest.statistics(tmp_path / "out")["days"])
    found = hashes(tmp_path / "out", days)
    assert {key: value for key, value in found.items() if key[0] < since} == kept  # the past is not written again
    # The history of a user ends before the first exposure that is known: later logs cannot change what is written.
    assert {key: value for key, value in found.items() if key[0] >= since} == hashes(
        whole, [day for day in days if day >= since])


def test_days_can_be_written_again_from_any_snapshot(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    days = list(manifest.statistics(whole)["days"])
    kuairand.convert(source, str(tmp_path / "out"), Options(since="20220425"))
    assert hashes(tmp_path / "out", days) == hashes(whole, days)


@pytest.mark.parametrize(("since", "message"), [
    ("20220424", r"--since must be a day of the log. Received: '20220424'"),
    ("20220420", r"--since needs a snapshot of an earlier day.*Received: --since=20220420"),
])
def test_since_that_cannot_be(full, tmp_path, since, message):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        kuairand.convert(source, str(tmp_path / "out"), Options(since=since))
    days = list(manifest.statistics(whole)["days"])
    assert hashes(tmp_path / "out", days) == hashes(whole, days)


def test_since_does_not_leave_days_out(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    for day in ("20220425", "20220426"):
        shutil.rmtree(tmp_path / "out/snapshots" / day)
    with pytest.raises(UserError, match=r"must directly follow.*with \['20220425'\] after the snapshot of 20220421"):
        kuairand.convert(source, str(tmp_path / "out"), Options(since="20220426"))


def test_since_does_not_leave_later_days_as_they_were(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    some = kf.generate(rows=150, seed=3)
    for name in kf.LOGS:
        some[name] = [row for row in some[name] if row["date"] == "20220425"]
    some = {name: rows for name, rows in some.items() if rows}
    with pytest.raises(UserError, match=r"needs a log with all later days.*Received: a data set with \['20220426'\]"):
        kuairand.convert(kf.write(tmp_path / "in", some), str(tmp_path / "out"), Options(since="20220425"))


def test_what_is_added_has_the_form_of_what_is_there(full, tmp_path):
    source, whole = full
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(UserError, match="must have the layout 'example'.*Received: 'block', ''"):
        kuairand.convert(source, str(tmp_path / "out"), Options(since="20220426", form=Form("block")))


@pytest.mark.slow
def test_processes_write_what_one_writes(full, tmp_path):
    source, whole = full
    kuairand.convert(source, str(tmp_path / "out"), Options(form=Form(workers=2)))
    days = list(manifest.statistics(whole)["days"])
    assert hashes(tmp_path / "out", days) == hashes(whole, days)
