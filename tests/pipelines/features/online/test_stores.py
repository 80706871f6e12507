"""What was acknowledged is kept: over restarts, compactions, and a kill at any moment."""

import os
import signal
import subprocess
import sys

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines.features.online.stores import Directory
from tests.pipelines.features.test_computed_features import EVERY, LOGS
from tests.support import computed, online


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A data set, its log, and what its features are."""
    directory, log, schema = tmp_path_factory.mktemp("shop"), LOGS["many days"](), computed.schema_of(EVERY)
    wanted = online.data_set(directory, schema, lambda snapshots: computed.compute(log, schema, snapshots))
    return directory, log, schema, wanted


def test_a_store_goes_on_after_restarts_and_compactions(shop, tmp_path):
    """Opened again after every few moments, with and without a compaction, it gives the pipeline's rows."""
    directory, log, schema, wanted = shop
    replay, days, played = online.shop(schema), online.days(log, computed.day_of), {}
    holder = [online.opened(directory, days[0], store=Directory(tmp_path / "store"))]

    class Reopened:
        def __getattr__(self, name):
            return getattr(holder[0], name)

    def after(n):
        if n % 9 == 8:
            holder[0].compact()
        if n % 6 == 5:
            holder[0].close()
            holder[0] = online.opened(directory, store=Directory(tmp_path / "store"))
            assert holder[0].day == days[0]

    for day in days[1:]:
        played |= replay.play(Reopened(), [e for e in log if computed.day_of(e) == day], after)
    holder[0].close()
    assert online.differences(played, wanted) == [] and len(played) > 100
    names = sorted(p.name for p in (tmp_path / "store").iterdir())
    assert len(names) == 4 and names[0] == "begun.json" and names[2][9:] == names[3][8:-4] != "000000"


def test_a_store_is_of_one_day_and_one_process(shop, tmp_path):
    directory, log, *_ = shop
    store = tmp_path / "store"
    with online.opened(directory, "d0", store=Directory(store)):
        with pytest.raises(UserError, match="store is in use: another process counts in it"):
            online.opened(directory, store=Directory(store))
    with pytest.raises(UserError, match="goes on from the snapshot of day 'd0'.*Received: day 'd1'"):
        online.opened(directory, "d1", store=Directory(store))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="mine must be a new directory, or one of online features"):
        online.opened(directory, store=Directory(tmp_path / "mine"))
    closed = online.opened(directory, store=Directory(store))
    closed.close()
    e = next(e for e in log if computed.day_of(e) == "d1")
    with pytest.raises(UserError, match="must be open to count. Received: an update after close"):
        closed.update({c: e[c] for c in ("who", "what", "ts", "brand", "tab")})


def test_a_compaction_that_fails_changes_nothing(shop, tmp_path, monkeypatch):
    """A full disk must not cost what is there."""
    directory, log, schema, _ = shop
    rows = [e for e in log if computed.day_of(e) in ("d1", "d2")]
    features = online.opened(directory, "d0", store=Directory(tmp_path / "store"))
    online.shop(schema).play(features, rows)
    before = online.shop(schema).ask(features, log[-1])
    with monkeypatch.context() as patched:
        patched.setattr("pyarrow.parquet.write_table", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(UserError, match="store cannot be written, and goes on as before. Received: full"):
            features.compact()
    features.close()
    with online.opened(directory, store=Directory(tmp_path / "store")) as again:
        assert online.shop(schema).ask(again, log[-1]) == before


def exposure(n):
    return {"who": "uvw"[n % 3], "what": n % 5, "brand": "ab"[n % 2], "tab": n % 2,
            "ts": computed.START + 30 * computed.HOUR + n}


def count(directory, store):
    """What the process does that is killed: it prints the number of each exposure whose feedback was acknowledged."""
    features = online.opened(directory, "d0", store=Directory(store))
    for n in range(10**6):
        features.feedback(features.update(exposure(n)), {"click": n % 2, "dwell": 0.5})
        if n % 50 == 49:
            features.compact()
        print(n, flush=True)


def everything(features):
    candidates = {"what": range(5), "brand": ["a", "b", "a", "b", ""]}
    found = [features.features(who, candidates, {"tab": 0}, computed.START + 40 * computed.HOUR) for who in "uvw"]
    return [(name, values.tolist()) for part in found for name, values in part.items()]


def counted(directory, exposures, reactions):
    """The features after so many exposures, and feedback of so many."""
    with online.opened(directory, "d0") as features:
        for n in range(exposures):
            number = features.update(exposure(n))
            if n < reactions:
                features.feedback(number, {"click": n % 2, "dwell": 0.5})
        return everything(features)


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [0, 1, 48, 49, 73, 160])
def test_what_was_acknowledged_before_a_kill_is_there(acknowledged, shop, tmp_path):
    """kill -9 at an arbitrary moment: of an update, of feedback, or of a compaction."""
    directory, *_ = shop
    command = f"from {__name__} import count; count({str(directory)!r}, {str(tmp_path / 'store')!r})"
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == acknowledged:
            os.kill(process.pid, signal.SIGKILL)
            break
    last = max([acknowledged, *map(int, process.stdout.read().split())])
    assert process.wait() == -signal.SIGKILL
    with online.opened(directory, store=Directory(tmp_path / "store")) as restored:
        found = everything(restored)
    # One more exposure, and its feedback, may have been written and not yet acknowledged.
    assert found in [counted(directory, *more) for more in ((last + 1,) * 2, (last + 2, last + 1), (last + 2,) * 2)]
