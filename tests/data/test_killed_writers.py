"""Processes that are killed while they write a data set: the old one is there, or none."""

import json
import os
import subprocess
import sys

import pytest

from dlen_cam2.data import manifest
from pipelines import check
from pipelines.from_logs import convert
from tests.support.builders import ROOT
from tests.support.logs import DAY, START, read_all, write
from tests.support.whole_logs import ROLES, SCHEMA, TYPES, content_of, forked, log_rows

pytestmark = pytest.mark.slow

# A process that dies: each in a fork of one that has imported everything and run nothing.
FORKS = '''
import json, os, pathlib, re, resource, signal, sys, traceback
import tensorflow as tf, tensorflow_datasets
from dlen_cam2.utils import files
from dlen_cam2.utils.errors import UserError
from pipelines.engines import duckdb_engine
from pipelines.writer import dataset, shards
from tests.support.whole_logs import forked

def when(module, name, number, half=False, of=""):
    """Die at the call `number` of a function, of those whose argument is like `of`, perhaps after it wrote a part."""
    real, calls = getattr(module, name), []
    def dies(*given, **named):
        calls.extend([1] if re.search(of, str(given[0])) else [])
        if len(calls) == number and re.search(of, str(given[0])):
            if half:
                pathlib.Path(given[0]).write_bytes(b"a part")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    setattr(module, name, dies)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

result = {}
for case, (setup, directory, since) in json.loads(sys.argv[1]).items():
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        status = 0
        try:
            eval(setup)
            forked(directory, since)
        except (UserError, OSError) as error:
            status = 1
            print("error:", error)
        except BaseException:
            status = 3
            print(traceback.format_exc())
        sys.stdout.flush()
        os._exit(status)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    result[case] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said
print(json.dumps(result))
'''
KILLS = {
    "in SQL": "when(duckdb_engine.Duckdb, 'run', 2)",
    "in the first shard": "when(shards, '_write', 1, True)",
    "in a later split's shard": "when(shards, '_write', 2, True)",
    "at the first manifest": "when(dataset, 'write_json', 1, True)",
    "before a split's rename": r"when(pathlib.Path, 'rename', 1, of=r'/\.2022\d+\.incomplete-\w+$')",
    "after a split's rename": "when(files.shutil, 'rmtree', 2, of='incomplete')",
    "before the statistics": "when(dataset, 'write_json', 1, of='statistics.json')",
    "before the metadata for TFDS": "when(dataset, '_write_tfds', 1)",
    "before the last rename": r"when(pathlib.Path, 'rename', 1, of=r'/\.out\.incomplete-\w+$')",
}
LIMITS = {f"{kilobytes} kB": f"limit({kilobytes} * 1024)" for kilobytes in (1, 60)}
MODES = ["new", "replace", "since", "since a day that is there"]


def big_rows():
    """Two days more, of 400 rows each."""
    rows = log_rows()
    return rows + [rows[0] | {"ts": START + 2 * DAY + i * DAY // 400, "uid": i, "city": "a city with a long name" * 5}
                   for i in range(800)]


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """{(kill, mode): (exit status, what was printed, directory, what was in it before)}."""
    home = tmp_path_factory.mktemp("died")
    write(home / "rows.parquet", big_rows(), TYPES)
    write(home / "old.parquet", log_rows()[:15], TYPES)
    convert(str(home / "old.parquet"), SCHEMA, ROLES, str(home / "old"))
    jobs, found = {}, {}
    for name, setup in (KILLS | LIMITS).items():
        for mode in MODES if name in KILLS else MODES[1:3]:
            directory = home / f"{len(jobs)}"
            (directory / "in").mkdir(parents=True)
            os.link(home / "rows.parquet", directory / "in" / "rows.parquet")
            if mode != "new":
                for path in (home / "old").rglob("*"):
                    if path.is_file():
                        target = directory / "out" / path.relative_to(home / "old")
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(path.read_bytes())
            since = {"since": "20220427", "since a day that is there": "20220426"}.get(mode, "")
            jobs[f"{name}/{mode}"] = (setup, str(directory), since)
            found[name, mode] = (directory, content_of(directory))
    done = subprocess.run([sys.executable, "-c", FORKS, json.dumps(jobs)], cwd=ROOT, capture_output=True, text=True,
                          timeout=900, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    return {key: (*status["/".join(key)], directory, before) for key, (directory, before) in found.items()}


def seen(directory):
    """All but what is hidden."""
    return {name: data for name, data in content_of(directory).items() if not name.startswith(".")}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_process_leaves_the_old_data_set_or_nothing(died, kill, mode):
    status, said, directory, before = died[kill, mode]
    if kill == "before the last rename" and mode.startswith("since"):
        return  # there is none
    assert status == -9, said
    output = directory / "out"
    if mode == "new":
        assert not output.exists()
    elif output.exists():
        report = check.check(output)
        assert not report.failed, [f.line for f in report.findings if f.status == check.FAIL]
        days = manifest.statistics(output)["days"]
        assert {"20220425", "20220426"} <= set(days)
        assert len(read_all(output)) == sum(day["rows"] for day in days.values())
        if mode == "replace":
            assert seen(directory) == before
    else:
        assert mode == "replace"  # between two renames nothing is there
    forked(directory, {"since": "20220427", "since a day that is there": "20220426"}.get(mode, ""))
    assert {d: f["rows"] for d, f in manifest.statistics(output)["days"].items()} == {
        "20220425": 10, "20220426": 5 if mode == "since" else 10, "20220427": 400, "20220428": 400}


@pytest.mark.parametrize("mode", MODES[1:3])
@pytest.mark.parametrize("size", LIMITS)
def test_a_disk_without_room_is_one_message_and_changes_nothing(died, size, mode):
    """Files may not grow beyond some size, wherever in the work that is met."""
    status, said, directory, before = died[size, mode]
    assert status == 1, said[-2000:]
    assert said.count("error: ") == 1 and "Traceback" not in said
    assert content_of(directory) == before
    assert not check.check(directory / "out").failed
