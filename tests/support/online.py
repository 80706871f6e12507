"""Days of a log, played to the online features as they come: each exposure asks, is shown, and gets its feedback."""

import dataclasses
import heapq

import numpy as np

from dlen_cam2.schema import pbtxt
from pipelines.features.feed import KNOWN, SESSION
from pipelines.features.online import OnlineFeatures
from pipelines.features.point_in_time import splits
from tests.support import computed, exposures


def data_set(directory, schema, make):
    """A directory with the schema and the snapshots that `make(snapshots)` writes; returns what that returns."""
    directory.mkdir(exist_ok=True)
    pbtxt.save(schema, directory)
    return make(directory / "snapshots")


def opened(directory, day=None, **how):
    return OnlineFeatures.open(directory, day, **{"dtype": np.float64} | how)


def days(log, day_of):
    return sorted({day_of(e) for e in log if e["split"] is not None})


class Replay:
    """Plays rows of a log.

    Args:
        schema: the schema, with computed features.
        known_at: (row, columns) -> when these feedback columns are known.
        together: feedback columns that come in one call; what the call also has.
        rng: draws which feedback is told early, or late but before the next exposure.
    """

    def __init__(self, schema, known_at, together, rng):
        self.schema, self.known_at, self.together, self.rng = schema, known_at, together, rng
        self.user, self.item, self.time = (schema.keys[r] for r in ("user", "item", "time"))
        self.early = self.late = self.asked = 0

    def ask(self, online, e, others=()):
        """The features of the exposure `e`, as a candidate among others, by name."""
        names = [c for c in online._checks.types if c in e and c not in online.feedback_columns
                 and c not in (self.user, self.time)]
        shared = [c for c in ("tab",) if c in names]
        rows = [e, *others]
        candidates = {c: [o[c] for o in rows] for c in names if c not in shared}
        found = online.features(e[self.user], candidates, {c: e[c] for c in shared}, e[self.time])
        self.asked += 1
        made = {}
        for f in self.schema.features:
            if f.computed:
                value = found[f.name]
                assert len(value) in (1, len(rows))
                made[f.name] = value[0].tolist() if f.is_list else value[0]
        return made

    def play(self, online, rows, after=None, hold=False):
        """{row: features} of the rows in the order of time; `after(n)` is called after each moment.

        With `hold`, no feedback is told before the end, and then in any order.
        """
        found, later, order = {}, [], 0
        rows = sorted(rows, key=lambda e: e[self.time])
        moments = sorted({e[self.time] for e in rows})
        for n, now in enumerate(moments):
            while later and later[0][0] < now and not hold:
                self._tell(online, heapq.heappop(later))
            here = [e for e in rows if e[self.time] == now]
            for e in here:
                found[e["row"]] = self.ask(online, e, [o for o in rows[:7] if o is not e])
            for e in map(here.__getitem__, self.rng.permutation(len(here))):
                number = online.update({c: e[c] for c in online._checks.types if c in e and (
                    c not in online.feedback_columns or e[c] is None)})
                for columns, more in self.together:
                    columns = [c for c in columns if c in online.feedback_columns and e[c] is not None]
                    if columns:
                        order += 1
                        item = (self.known_at(e, *columns), order, number, {c: e[c] for c in (*columns, *more)})
                        if self.rng.random() < 0.3 and not hold:
                            self.early += item[0] > now
                            self._tell(online, item)
                        else:
                            heapq.heappush(later, item)
            if after:
                after(n)
        if hold and after:
            after(-1)
        for n in self.rng.permutation(len(later)):
            self._tell(online, later[n])
        return found

    def _tell(self, online, item):
        known, _, number, values = item
        online.feedback(number, values)


def shop(schema, seed=0):
    def known_at(e, *columns):
        return computed.known_at(e | {"dwell": e["dwell"] or 0.0}, *columns)

    return Replay(schema, known_at, ((("click", "dwell"), ("dwell",)), (("buy", "price"), ("bought_at",))),
                  np.random.default_rng(seed))


# The whole feed of KuaiRand, with feedback that is known after the play.
FEED = dataclasses.replace(exposures.SCHEMA, features=(*exposures.SCHEMA.features, *SESSION), known=KNOWN,
                           targets=("play_s",))
UNKNOWN = ("click", "profile_enter", "play_s")


def compute_feed(log, snapshots, schema=FEED):
    """{row: features} as the product computes them."""
    found = {}
    with exposures.connected(log) as engine:
        for _, rows in splits(engine, schema, snapshots, unknown=UNKNOWN):
            for row in rows.read_all().to_pylist():
                found[row["row"]] = {f.name: ([] if row[f.name] is None and f.is_list else row[f.name])
                                     for f in schema.features if f.computed}
    return found


def feed(schema=FEED, seed=0):
    """Each column of feedback comes in a call, which also says how long the video was played."""
    def known_at(e, *columns):
        late = any(c in schema.known for c in columns)
        return e["time_ms"] + exposures.milliseconds(e["play_s"] or 0.0) * late

    return Replay(schema, known_at, tuple(((c,), ("play_s",)) for c in (*exposures.FEEDBACK, "play_s")),
                  np.random.default_rng(seed))


def differences(found, wanted):
    """[(row, feature, online, batch)] where the bits differ; lists are padded online."""
    def same(a, b):
        if isinstance(a, list):
            return a == [*b, *[-1 if isinstance(a[0], int) else ""] * (len(a) - len(b))]
        return np.float64(a).tobytes() == np.float64(b).tobytes() if isinstance(b, float) else a == b

    return [(row, name, value, wanted[row][name]) for row, features in found.items() for name, value in features.items()
            if not same(value, wanted[row][name])]
