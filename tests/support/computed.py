"""A shop's random exposures with feedback that comes late, and computed features by their definition: slowly."""

import contextlib
import math
import pathlib
import tempfile

import numpy as np
import pyarrow as pa

from dlen_cam2.schema import Computed, Feature, Known, Schema, Task
from pipelines import engines
from pipelines.features.plan import Log, Plan
from pipelines.features.point_in_time import splits

HOUR = 3_600_000
DAY = 24 * HOUR
START = 457_000 * HOUR
TYPES = {"row": "int", "split": "string", "ts": "int", "who": "string", "what": "int", "brand": "string", "tab": "int",
         "click": "int", "buy": "int", "price": "float", "dwell": "float", "bought_at": "int"}
_ARROW = {"int": pa.int64(), "float": pa.float64(), "string": pa.string()}
KNOWN = {"click": Known(after="dwell"), "buy": Known(at="bought_at"), "price": Known(at="bought_at"),
         "dwell": Known(after="dwell")}
KEYS = {"user": "who", "item": "what", "time": "ts"}
PLAIN = (Feature("row", "int", "context", "context", size=9999, width=1),
         Feature("brand", "string", "item", "content", size=9, hashed=True, width=1))


def schema_of(features):
    """A schema with these computed features: {name: Computed, or (Computed, length)}."""
    made = []
    for name, c in features.items():
        c, length = c if isinstance(c, tuple) else (c, 1)
        if c.kind == "sequence" or c.kind == "last" and TYPES[c.value] != "float" and c.missing is None:
            how = {"hashed": True} if TYPES[c.value] == "string" else {}
            made.append(Feature(name, TYPES[c.value], "user", "content", size=99, width=2, max_length=length,
                                computed=c, **how))
        else:
            made.append(Feature(name, "float", "user", "statistical", computed=c))
    return Schema("shop", (*PLAIN, *made), (Task("click"), Task("buy")), ("price", "dwell"), KEYS, known=KNOWN)


def random_log(seed, rows=160, days=3, moments=50, older=0.1):
    """Few users, few items and few distinct times; purchases come up to two days later, and prices may be unknown."""
    rng = np.random.default_rng(seed)
    times = START + np.sort(rng.integers(0, days * 20 * HOUR, moments))
    times[1::5] = times[::5][:len(times[1::5])] + HOUR  # at the edges of windows
    times[2::5] = times[::5][:len(times[2::5])] + HOUR + 1
    log = []
    for row in range(rows):
        what, ts = int(rng.integers(5)), int(rng.choice(times))
        click = int(rng.random() < 0.5)
        buy = int(click and rng.random() < 0.6)
        log.append({
            "row": row, "split": f"d{(ts - START) // DAY}" + "_random" * int(rng.random() < 0.2), "ts": ts,
            "who": "uvw"[rng.integers(3)], "what": what, "brand": "ab"[what % 2] * (what != 4),
            "tab": int(rng.integers(2)), "click": click, "buy": buy,
            "price": round(float(rng.uniform(1, 9)), 3) if buy else 0.0,
            "dwell": float(rng.choice([0.0, 0.5, 30.0, 4000.0, 90_000.0])),
            "bought_at": ts + int(rng.choice([0, 1, 1000, HOUR, 30 * HOUR])) if buy else None,
        })
        if rng.random() < older:
            back = (24 * days + 30) * HOUR
            log[-1] |= {"split": None, "ts": ts - back, "tab": None,
                        "bought_at": log[-1]["bought_at"] - back if buy else None}
    return log


@contextlib.contextmanager
def connected(log, engine="duckdb"):
    columns = {name: pa.array([e[name] for e in log], _ARROW[dtype]) for name, dtype in TYPES.items()}
    with tempfile.TemporaryDirectory() as home, engines.connect(engine, pathlib.Path(home) / "out") as found:
        found.put("exposures", pa.table(columns))
        yield found


def compute(log, schema, snapshots=None, saved=None, since="", engine="duckdb", unknown=()):
    """{row: {feature: value}} as the product computes it."""
    rows = {}
    with connected(log, engine) as found:
        snapshots = snapshots or found.directory / "snapshots"
        for _, batch in splits(found, schema, snapshots, saved, since, unknown=unknown):
            for row in batch.read_all().to_pylist():
                rows[row["row"]] = {f.name: ([] if row[f.name] is None and f.is_list else row[f.name])
                                    for f in schema.features if f.computed}
    return rows


def day_of(e):
    return e["split"].split("_")[0] if e["split"] is not None else ""


def known_at(e, *columns):
    """When the last of these columns is known."""
    found = [e["ts"]]
    for known in (KNOWN[c] for c in columns if c in KNOWN):
        found.append(max(e["ts"], e[known.at] or 0) if known.at else
                     e["ts"] + math.floor(e[known.after] * 1000 + 0.5))
    return max(found)


def reference(log, e, schema, plan=None):
    """The computed features of the exposure `e`, by their definition: a loop over the log."""
    plan = plan or Plan(schema, Log({n: t for n, t in TYPES.items() if n != "split"}, "ts", "what", KNOWN))
    there = [o for o in log if day_of(o) <= day_of(e)]
    found = {}

    def events(c, of, value, before, since=-math.inf, among=""):
        return [o for o in there if (of == "exposures" or o[of] == 1)
                and since <= known_at(o, of, value, among) < before and all(o[k] == e[k] is not None for k in c.by)]

    def number(o, column):
        return math.floor(o[column] * 1000 + 0.5) if TYPES[column] == "float" else o[column]

    def rate(c):
        since = e["ts"] - c.milliseconds if c.milliseconds > 0 else -math.inf
        unit = 1000 if c.value else 1
        if c.value:
            def above(rows):
                return sum(min(number(o, c.value), number(o, c.among)) for o in rows)

            def below(rows):
                return sum(number(o, c.among) for o in rows)
        else:
            above = below = len
        among = ("exposures", c.among) if c.value else (c.among or "exposures", "")
        needs = c.among if c.value else ""  # of a row no more than that counts
        n, d = above(events(c, c.of, c.value, e["ts"], since, needs)), below(events(c, *among, e["ts"], since))
        if c.prior_number is not None:
            prior = c.prior_number
        elif c.prior:
            prior = rate(rates[c.prior])
        else:
            hour = e["ts"] - e["ts"] % HOUR
            everyone = Computed("count", ("nothing",))
            e["nothing"] = 1
            for o in log:
                o["nothing"] = 1
            prior = (above(events(everyone, c.of, c.value, hour, among=needs)) + 1) / (
                below(events(everyone, *among, hour)) + 1 / c.start)
        return (n + c.strength * unit * prior) / (d + c.strength * unit)

    rates = {f.name: f.computed for f in schema.features if f.computed and f.computed.kind == "rate"}
    for feature in schema.features:
        c = feature.computed
        if c is None:
            continue
        if c.kind == "rate":
            found[feature.name] = rate(c)
            continue
        if c.is_session:
            found[feature.name] = float(session(there, e, c))
            continue
        since = e["ts"] - c.milliseconds if c.milliseconds > 0 else -math.inf
        rows = events(c, c.of, c.value, e["ts"], since)
        if c.is_numbered:
            _, listed = plan.list_of(c)
            rows.sort(key=lambda o: (known_at(o, c.of, c.value), *(o[v] for v in listed.values)), reverse=True)
            rows = rows[:feature.max_length if c.kind == "sequence" else max(c.last, 1)]
        values = [o[c.value] for o in rows] if c.value else []
        unit = 1000 if TYPES.get(c.value) == "float" else 1
        total = sum(number(o, c.value) for o in rows) / unit if c.kind in ("sum", "mean") else 0
        last = max((known_at(o, c.of, c.value) for o in rows), default=None)
        absent = {"int": -1, "string": ""}.get(feature.dtype, c.missing or 0.0)
        found[feature.name] = {
            "count": lambda rows=rows: float(len(rows)),
            "sum": lambda total=total: float(total),
            "mean": lambda rows=rows, total=total, c=c: total / len(rows) if rows else c.missing or 0.0,
            "last": lambda values=values, absent=absent: values[0] if values else absent,
            "age": lambda last=last, c=c: (864_000.0 if c.missing is None else c.missing) if last is None
            else (e["ts"] - last) / 1000,
            "distinct": lambda values=values: float(len(set(values))),
            "same": lambda values=values, c=c: float(e[c.value] in values),
            "sequence": lambda values=values: values,
        }[c.kind]()
    return found


def session(there, e, c):
    """The exposures before `e` since the last pause, or within a day."""
    own = sorted({o["ts"] for o in there if o["ts"] <= e["ts"] and all(o[k] == e[k] for k in c.by)})
    starts = [b for a, b in zip([-math.inf, *own], own, strict=False) if b - a >= c.milliseconds]
    begin = max((s for s in starts if s >= e["ts"] - DAY), default=e["ts"] - DAY)
    return sum(begin <= o["ts"] < e["ts"] for o in there if all(o[k] == e[k] for k in c.by))
