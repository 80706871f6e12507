"""The SQL of each computed feature, from what a plan has counted: see `statements` for the tables."""

from dlen_cam2.schema import Feature
from dlen_cam2.schema.computed import Computed
from pipelines.engines import quoted
from pipelines.features.amounts import ALL, HOUR_MS, TS, Amount, Key, value_name
from pipelines.features.plan import Plan, last_events

NEVER_S = 864_000.0  # an age without an event: ten days
_ABSENT = {"int": "-1", "string": "''"}


def column_of(amount: str, window: int) -> str:
    """The column of an amount within a window."""
    return amount if window == ALL else f"{amount}_{window}"


def double(number: float) -> str:
    """The number as SQL of type DOUBLE; a plain decimal would be exact, and slow."""
    text = repr(float(number))
    return text if "e" in text else f"{text}e0"


def expressions(plan: Plan) -> dict[str, str]:
    """SQL of each feature, by name, in the SELECT that joins the tables."""
    rates = {f.name: plan.resolved(f) for f in plan.features if plan.resolved(f).kind == "rate"}
    found = {}
    for feature in plan.features:
        c = plan.resolved(feature)
        if c.kind == "rate":
            found[feature.name] = _rate(plan, c, rates)
        elif c.is_session:
            s = f"s{list(plan.sessions).index((c.by, c.milliseconds))}"
            found[feature.name] = f"coalesce({s}.before - {s}.at_start, {s}.of_day, 0)"
        elif c.is_numbered:
            found[feature.name] = _of_list(plan, c, feature)
        else:
            found[feature.name] = _of_sums(plan, c)
    return found


def _amount(plan: Plan, by: Key, window: int, amount: Amount) -> str:
    alias = "w" if window > HOUR_MS else "c"
    return f"{alias}{list(plan.amounts).index(by)}.{quoted(column_of(amount.name, max(window, ALL)))}"


def _rate(plan: Plan, c: Computed, rates: dict[str, Computed]) -> str:
    of, among = (_amount(plan, c.by, c.window, amount) for amount in plan.rate(c))
    weight = c.strength * (plan.unit(c.among) if c.value else 1)
    if (number := c.prior_number) is not None:
        more = double(number * weight)
    elif c.prior:
        more = f"{double(weight)} * ({_rate(plan, rates[c.prior], rates)})"
    else:
        more = f"{double(weight)} * h.{quoted(plan.base(c))}"
    return f"({of} + {more}) / ({among} + {double(weight)})"


def _of_sums(plan: Plan, c: Computed) -> str:
    if c.kind == "distinct" and c.window < 0:
        return _amount(plan, c.by, ALL, plan.first(c))
    first, *rest = (_amount(plan, c.by, c.window, amount) for amount in plan.summed(c))
    if c.kind == "age":
        return f"coalesce((t.{TS} - {first}) / 1000e0, {double(NEVER_S if c.missing is None else c.missing)})"
    if c.kind == "mean":
        return f"coalesce({first} / nullif({rest[0]}, 0) / {plan.unit(c.value)}e0, {double(c.missing or 0.0)})"
    if c.kind == "sum":
        return f"{first} / {plan.unit(c.value)}e0"
    return f"CAST({first} AS DOUBLE)"


def _of_list(plan: Plan, c: Computed, feature: Feature) -> str:
    place, listed = plan.list_of(c)
    value = listed.values.index(c.value)
    length = last_events(feature, c)

    def of(what: str) -> str:
        return f"l{place}.{what}_{length}_{value}"

    newest, last = f"l{place}.{value_name(value)}", of("last")
    if c.kind == "sequence":
        return last
    missing = double(c.missing or 0.0)
    if c.kind == "last" and feature.is_numeric:
        return f"coalesce(CAST({newest} AS DOUBLE), {missing})"
    if c.kind == "last":
        return f"coalesce({newest}, {_ABSENT[feature.dtype]})"
    if c.kind == "same":
        own = f"t.{quoted(c.value)}"
        found = f"{newest} = {own}" if length == 1 else f"array_contains({last}, {own})"
        return f"CASE WHEN {found} THEN 1e0 ELSE 0e0 END"
    if c.kind == "distinct":
        one = f"CASE WHEN {newest} IS NULL THEN 0 ELSE 1 END"
        count = one if length == 1 else f"array_size(array_distinct({last}))"
        return f"CAST(coalesce({count}, 0) AS DOUBLE)"
    total, unit = of("sum"), plan.unit(c.value)
    return f"coalesce({total} / {unit}e0, 0)" if c.kind == "sum" else \
        f"coalesce({total} / {of('n')} / {unit}e0, {missing})"
