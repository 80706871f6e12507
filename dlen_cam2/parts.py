"""Parts: the pieces from which a model is assembled, and the registry that finds each by its paper's word.

A part is a dataclass in a separate file. Its fields are its configuration; each is documented, and the rule given to
`option` checks it. The part registers itself under a name of its kind, and no other file has to be edited:
configurations, the command line, checks, search spaces, tables and the contract test read the registry.

    @trunk("mmoe")
    @dataclasses.dataclass
    class MMOE(Trunk):
        experts: int = option(5, least=1, search=(2, 8))

The parts of this package are modules of the packages in `HOMES`, which are loaded when a kind is first asked for. To
add your own part, write it in a module of yours and import that module in the experiment file. So that commands that
read a trained model also find it, declare it as an entry point of your installed package:

    [project.entry-points."dlen_cam2.parts"]
    separate = "my_package.separate"
"""

import dataclasses
import importlib
import importlib.metadata
import math
import pkgutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

from dlen_cam2.utils.errors import UserError

# Where the parts of a kind lie. Modules are imported from here, and never by a name that a user gives.
HOMES = {
    "trunk": "dlen_cam2.models.trunks", "head": "dlen_cam2.models.heads", "causal": "dlen_cam2.models.causal",
    "encoder": "dlen_cam2.models.sequence", "transfer": "dlen_cam2.models.transfer", "label": "dlen_cam2.labels",
    "step_rule": "dlen_cam2.training.balancing", "score_adapter": "dlen_cam2.serving.score_adapters",
}
ENTRY_POINTS = "dlen_cam2.parts"  # of installed packages, whose modules hold parts
_CLASSES: dict[str, dict[str, type["Part"]]] = {kind: {} for kind in HOMES}
_loaded: set[str] = set()

P = TypeVar("P", bound="Part")


@dataclasses.dataclass
class Part:
    """A piece of a model, with its configuration.

    Attributes:
        kind, name: the names under which it is registered: "trunk", "mmoe".
        title: its name in tables, such as "MMOE"; empty: the registered name.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def check(self, where: str) -> None:
        """Raise `UserError` naming the key (`where` and the field) if a value breaks a rule.

        A subclass with a rule about several fields overrides this method and calls it first.
        """
        check_fields(self, where)

    def to_dict(self) -> dict[str, Any]:
        """The part as plain JSON values: its name as "kind", and its fields."""
        return {"kind": self.name, **dataclasses.asdict(self)}

    if TYPE_CHECKING:  # the fields of the parts that a configuration holds are known to the parts only

        def __getattr__(self, name: str) -> Any: ...

        def __call__(self, *arguments: Any) -> Any: ...


def register(kind: str, name: str) -> Callable[[type[P]], type[P]]:
    """Return the decorator that registers a part.

    Raises:
        UserError: another part has this name, or the name is not an identifier.
    """

    def enter(cls: type[P]) -> type[P]:
        known = _CLASSES[kind].get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(
                f"the name of a {kind} must be unique. Received: {name!r} for {cls.__module__}.{cls.__qualname__}, "
                f"which is the name of {known.__module__}.{known.__qualname__}."
            )
        if not name.isidentifier() or not dataclasses.is_dataclass(cls):
            raise UserError(f"a part must be a dataclass whose name is an identifier. Received: {cls!r} as {name!r}.")
        cls.kind, cls.name = kind, name
        _CLASSES[kind][name] = cls
        return cls

    return enter


def trunk(name: str) -> Callable[[type[P]], type[P]]:
    """Register a trunk, see `dlen_cam2.models.parts.Trunk`."""
    return register("trunk", name)


def head(name: str) -> Callable[[type[P]], type[P]]:
    """Register a head, see `dlen_cam2.models.parts.Head`."""
    return register("head", name)


def causal(name: str) -> Callable[[type[P]], type[P]]:
    """Register causal branches, see `dlen_cam2.models.parts.Causal`."""
    return register("causal", name)


def encoder(name: str) -> Callable[[type[P]], type[P]]:
    """Register an encoder of lists, see `dlen_cam2.models.parts.Encoder`."""
    return register("encoder", name)


def transfer(name: str) -> Callable[[type[P]], type[P]]:
    """Register a transfer between tasks' towers, see `dlen_cam2.models.parts.Transfer`."""
    return register("transfer", name)


def label(name: str) -> Callable[[type[P]], type[P]]:
    """Register a kind of task, see `dlen_cam2.labels.kind.Kind`."""
    return register("label", name)


def step_rule(name: str) -> Callable[[type[P]], type[P]]:
    """Register a step rule, see `dlen_cam2.training.balancing.step_rule.StepRule`."""
    return register("step_rule", name)


def score_adapter(name: str) -> Callable[[type[P]], type[P]]:
    """Register a score adapter, see `dlen_cam2.serving.score_adapters.adapter.ScoreAdapter`."""
    return register("score_adapter", name)


def classes(kind: str) -> dict[str, type[Part]]:
    """The parts of a kind, {name: class}, sorted by name. Raises `UserError` if the module of an entry point fails."""
    if ENTRY_POINTS not in _loaded:
        _loaded.add(ENTRY_POINTS)
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            try:
                point.load()
            except Exception as error:
                raise UserError(f"the entry point {point.name!r} of {ENTRY_POINTS} must be a module with parts. "
                                f"Received: {point.value!r}: {type(error).__name__}: {error}") from error
    if kind not in _loaded:
        _loaded.add(kind)  # first, since the modules may ask for the kind themselves
        home = importlib.import_module(HOMES[kind])
        for module in pkgutil.iter_modules(home.__path__):
            importlib.import_module(f"{HOMES[kind]}.{module.name}")
    return dict(sorted(_CLASSES[kind].items()))


def find(kind: str, name: Any, where: str) -> type[Part]:
    """The class that is registered as `name`.

    Raises:
        UserError: there is no such part; the message names `where` it was asked for.
    """
    known = classes(kind)
    if not isinstance(name, str) or name not in known:
        raise UserError(f"{where} must be a {kind}, one of {list(known)}. Received: {name!r}. If the part is yours, "
                        f"import its module first, or make it an entry point of {ENTRY_POINTS}.")
    return known[name]


def make(kind: str, name: str) -> Any:
    """The part `name` with its default values."""
    return find(kind, name, kind)()


def from_dict(kind: str, values: dict[str, Any]) -> Any:
    """The part that `to_dict` returned, also from JSON. Values are not checked, see `dlen_cam2.config`."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key != "kind"}
    return find(kind, values["kind"], f"the {kind}")(**given)


def part(kind: str, default: str | None) -> Any:
    """A configuration field that holds a part of this kind; with `default=None` it may also hold None."""
    factory = (lambda: None) if default is None else (lambda: make(kind, default))
    return dataclasses.field(default_factory=factory, metadata={"part": kind, "optional": default is None})


def elsewhere(cls: type, names: Sequence[str], where: str = "config") -> str:
    """The sentence of an error message that says where in `cls` and its sections these names are keys or parts."""
    found = []

    def look(cls: type, where: str) -> None:
        hints = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            at = f"{where}.{field.name}"
            if field.name in names:
                found.append(at)
            if kind := field.metadata.get("part"):
                known = classes(kind)
                found.extend(f"{at}={name}" for name in known if name in names)
                for name in names:
                    if owners := [k for k, v in known.items() if name in {f.name for f in dataclasses.fields(v)}]:
                        found.append(f"{at}.{name} of {', '.join(owners)}")
            elif dataclasses.is_dataclass(hint := hints[field.name]) and isinstance(hint, type):
                look(hint, at)

    look(cls, where)
    return f" There is {' and '.join(found)}." if found else ""


def option(
    default: Any, *, least: float | None = None, most: float | None = None, above: float | None = None,
    below: float | None = None, choices: Sequence[Any] = (), some: bool = False, search: Any = None,
) -> Any:
    """A field of a part or of a configuration, with its rule.

    Args:
        default: the default value; the field has its type.
        least, most, above, below: bounds on the number, or on each number of a tuple; floats must be finite.
        choices: the allowed values.
        some: a tuple must not be empty.
        search: values that tuning may try: a list of values, or (first, last) for numbers; texts such as "128 64" stand
            for layer sizes. Tuning sets a single value for the sake of other fields. None: tuning leaves it alone.
    """
    rule = {"least": least, "most": most, "above": above, "below": below, "choices": tuple(choices), "some": some}
    return dataclasses.field(default=default, metadata={"rule": rule, "search": search})


def check_fields(values: Any, where: str) -> None:
    """Raise `UserError` if a field of a dataclass breaks the rule of its `option`."""
    for field in dataclasses.fields(values):
        if (rule := field.metadata.get("rule")) is not None:
            value = getattr(values, field.name)
            if not _holds(value, rule):
                raise UserError(f"{where}.{field.name} must be {_words(value, rule)}. Received: {value!r}.")


def _holds(value: Any, rule: dict[str, Any]) -> bool:
    if isinstance(value, tuple | list):
        return (bool(value) or not rule["some"]) and all(_holds(each, {**rule, "some": False}) for each in value)
    if rule["choices"]:
        return value in rule["choices"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return all(rule[end] is None for end in ("least", "most", "above", "below"))
    return (
        (isinstance(value, int) or math.isfinite(value)) and (rule["least"] is None or value >= rule["least"])
        and (rule["most"] is None or value <= rule["most"]) and (rule["above"] is None or value > rule["above"])
        and (rule["below"] is None or value < rule["below"])
    )


def _words(value: Any, rule: dict[str, Any]) -> str:
    """The rule in words: "at least 1", "in (0, 1]", "one of (…)", "a tuple of …"."""
    if rule["choices"]:
        text = f"one of {rule['choices']}"
    else:
        lower = None if rule["least"] is rule["above"] is None else ("[", rule["least"]) if rule["above"] is None else (
            "(", rule["above"])
        upper = None if rule["most"] is rule["below"] is None else (rule["most"], "]") if rule["below"] is None else (
            rule["below"], ")")
        if lower and upper:
            text = f"in {lower[0]}{lower[1]}, {upper[0]}{upper[1]}"
        elif lower:
            text = f"{'at least' if lower[0] == '[' else 'above'} {lower[1]}"
            text += " and finite" if isinstance(value, float) else ""
        elif upper:
            text = f"{'at most' if upper[1] == ']' else 'below'} {upper[0]}"
            text += " and finite" if isinstance(value, float) else ""
        else:
            text = "finite"
    if isinstance(value, tuple | list):
        return f"a {'non-empty ' if rule['some'] else ''}tuple of values {text}"
    return text
