"""The registry of parts: found by name and by nothing else, stored and read again, checked by their options."""

import dataclasses
import importlib.util
import json
import math
import sys

import pytest

from dlen_cam2 import config as config_module
from dlen_cam2 import parts
from dlen_cam2.config import Config, ModelConfig, TrainConfig, replaced
from dlen_cam2.models.parts import Trunk
from dlen_cam2.models.trunks import MMOE, PLE
from dlen_cam2.parts import option
from dlen_cam2.training.balancing import Decay, GradNorm
from dlen_cam2.utils.errors import UserError
from tests.support.builders import tiny_config

KINDS = [kind for kind, home in parts.HOMES.items() if importlib.util.find_spec(home) is not None]
# Those that a configuration holds; its fields are called as the kinds are.
HELD = ("trunk", "head", "causal", "encoder", "transfer", "step_rule")
# What a stored configuration, or a command line, might name in place of a part.
STRANGE = [
    "moe", "", "MMOE", " mmoe", "../x", "/etc/passwd", "os.path", "antigravity", "dlen_cam2.models.trunks.mmoe",
    "trunks.mmoe", "mmoe:MMOE", "__init__", "__class__", "mmoe\0", "http://localhost/x.py", 0, 1.5, True, None, [],
    ["mmoe"], {}, {"kind": "mmoe"},
]


@pytest.fixture
def registry(monkeypatch):
    """What a test enters is gone after it."""
    monkeypatch.setattr(parts, "_CLASSES", {kind: parts.classes(kind) if kind in KINDS else {} for kind in parts.HOMES})


def test_the_parts_of_the_papers_are_there():
    assert list(parts.classes("trunk")) == ["cgc", "mmoe", "ple", "shared_bottom"]
    assert list(parts.classes("head")) == ["dlen", "esmm", "logistic"]
    assert list(parts.classes("causal")) == ["cam2"]
    assert list(parts.classes("encoder"))[0] == "mean" and list(parts.classes("label")) == ["binary", "regression"]
    rules = ["decay", "fixed", "gradnorm", "metabalance", "pcgrad", "uncertainty"]
    assert list(parts.classes("step_rule")) == rules
    for kind in KINDS:
        for name, cls in parts.classes(kind).items():
            assert (cls.kind, cls.name) == (kind, name) and cls.__module__.startswith(parts.HOMES[kind])


def of_every_kind(kinds=KINDS):
    return [pytest.param(kind, name, id=f"{kind} {name}") for kind in kinds for name in parts.classes(kind)]


def another(value):
    """A value of the same type that is not the default."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        return value + "x"
    return tuple(value) + tuple(value) if isinstance(value, tuple) else value + 1


@pytest.mark.parametrize("kind, name", of_every_kind())
def test_every_part_goes_through_json(kind, name):
    cls = parts.classes(kind)[name]
    default = cls()
    default.check("config.x")
    changed = cls(**{f.name: another(getattr(default, f.name)) for f in dataclasses.fields(cls)})
    for part in (default, changed):
        stored = json.loads(json.dumps(part.to_dict()))
        assert stored["kind"] == name and len(stored) == 1 + len(dataclasses.fields(cls))
        again = parts.from_dict(kind, stored)
        assert type(again) is cls and again == part
        assert [type(v) for v in vars(again).values()] == [type(v) for v in vars(part).values()]


@pytest.mark.parametrize("kind, name", of_every_kind(HELD))
def test_every_part_of_a_configuration_is_stored_with_it(kind, name, tmp_path):
    held = parts.make(kind, name)
    config = Config(train=TrainConfig(step_rule=held)) if kind == "step_rule" else Config(
        model=ModelConfig(**{kind: held}))
    config_module.save(config, tmp_path / "config.json")
    assert config_module.load(tmp_path / "config.json") == config


@pytest.mark.parametrize("kind, name", of_every_kind())
def test_every_field_is_described(kind, name):
    cls = parts.classes(kind)[name]
    for field in dataclasses.fields(cls):
        assert any(field.name in (owner.__doc__ or "") for owner in cls.__mro__), field.name


def test_one_of_two_parts_of_a_name_is_refused(registry):
    @dataclasses.dataclass
    class Mine(Trunk):
        pass

    with pytest.raises(UserError) as error:
        parts.trunk("mmoe")(Mine)
    assert str(error.value) == (
        f"the name of a trunk must be unique. Received: 'mmoe' for {Mine.__module__}.{Mine.__qualname__}, which is the "
        "name of dlen_cam2.models.trunks.mmoe.MMOE."
    )
    assert parts.classes("trunk")["mmoe"] is MMOE and (Mine.kind, Mine.name) == ("", "")
    parts.trunk("mine")(Mine)
    parts.trunk("mine")(Mine)  # the same, from a file that was read again
    parts.encoder("mmoe")(dataclasses.make_dataclass("Sum", [], bases=(parts.Part,)))  # another kind's name


@pytest.mark.parametrize("name", ["my trunk", "", "a.b", "../x", "1st", "a-b"])
def test_a_name_is_an_identifier(registry, name):
    with pytest.raises(UserError, match="a part must be a dataclass whose name is an identifier"):
        parts.trunk(name)(dataclasses.make_dataclass("Mine", [], bases=(Trunk,)))


def test_a_part_of_ones_own_is_configured_as_all_others(registry, tmp_path):
    @parts.trunk("halves")
    @dataclasses.dataclass
    class Halves(MMOE):
        share: float = option(0.5, above=0, below=1)

    assert "halves" in parts.classes("trunk")
    config = config_module.replaced(tiny_config(), {"model.trunk": "halves", "model.trunk.share": 0.25})
    assert config.model.trunk == Halves(units=(8, 6), experts=3, share=0.25)
    config_module.save(config, tmp_path / "config.json")
    assert config_module.load(tmp_path / "config.json") == config
    with pytest.raises(UserError, match=r"config\.model\.trunk\.share must be in \(0, 1\)\. Received: 1\.0"):
        config_module.replaced(config, {"model.trunk.share": 1.0})


@pytest.mark.parametrize("name", STRANGE, ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_no_part_is_one_message_and_imports_nothing(kind, name):
    known, before = list(parts.classes(kind)), set(sys.modules)
    with pytest.raises(UserError) as error:
        parts.from_dict(kind, {"kind": name})
    assert str(error.value).startswith(f"the {kind} must be a {kind}, one of {known}. Received: {name!r}. ")
    assert set(sys.modules) == before


@pytest.mark.parametrize("field", HELD)
@pytest.mark.parametrize("name", STRANGE, ids=repr)
def test_a_stored_configuration_names_parts_and_nothing_else(tmp_path, field, name):
    known, path = list(parts.classes(field)), tmp_path / "config.json"
    section = "train" if field == "step_rule" else "model"
    content = config_module.as_dict(Config())
    content[section][field] = {"kind": name}
    path.write_text(json.dumps(content))
    before = set(sys.modules)
    with pytest.raises(UserError) as error:
        config_module.load(path)
    assert str(error.value).startswith(
        f"{path}: config.{section}.{field}.kind must be a {field}, one of {known}. Received: {name!r}. "
    )
    assert set(sys.modules) == before


@pytest.mark.parametrize("part, message", [
    ({"kind": "mmoe", "levels": 2}, "(mmoe) has no key ['levels']. Known: ['experts', 'units']."),
    ({"kind": "shared_bottom", "experts": 2}, "(shared_bottom) has no key ['experts']. Known: ['units']."),
    ({"kind": "mmoe", "name": "ple"}, "(mmoe) has no key ['name']. Known: ['experts', 'units']."),
    ({"kind": "mmoe", "__class__": "x"}, "(mmoe) has no key ['__class__']. Known: ['experts', 'units']."),
])
def test_a_field_of_another_part_is_one_message(tmp_path, part, message):
    path, content = tmp_path / "config.json", config_module.as_dict(Config())
    content["model"]["trunk"] = part
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        config_module.load(path)
    assert str(error.value).startswith(f"{path}: config.model.trunk {message}")


def test_a_part_takes_over_what_the_one_before_had_too():
    def chosen(kind, name, before):
        section = "train" if kind == "step_rule" else "model"
        config = Config(**{section: (TrainConfig if kind == "step_rule" else ModelConfig)(**{kind: before})})
        return getattr(getattr(replaced(config, {f"{section}.{kind}": name}), section), kind)

    assert chosen("trunk", "ple", MMOE((7,), experts=3)) == PLE((7,), experts=3)
    assert chosen("trunk", "mmoe", PLE((7,), levels=3)) == MMOE((7,))
    assert chosen("step_rule", "gradnorm", Decay((0.5,))) == GradNorm()
    with pytest.raises(UserError, match=r"trunk must be a trunk, one of \['cgc', .*Received: 'moe'"):
        parts.make("trunk", "moe")


def checked(value, **rule):
    """What the check of one field says of a value; "" if it holds."""
    cls = dataclasses.make_dataclass("Held", [("field", object, option(None, **rule))])
    try:
        parts.check_fields(cls(value), "x")
    except UserError as error:
        text = str(error)
        assert text.startswith("x.field must be ") and text.endswith(f". Received: {value!r}.")
        return text.removeprefix("x.field must be ").removesuffix(f". Received: {value!r}.")
    return ""


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("rule, good, bad, words", [
    ({"least": 1}, [1, 2, 10**400, 1.0], [0, -1, -10**400], "at least 1"),
    ({"least": 1}, [1.5], [0.5, NAN, INF, -INF], "at least 1 and finite"),
    ({"above": 0}, [1, 1e-300], [0, -3], "above 0"),
    ({"above": 0}, [0.5], [0.0, NAN, INF], "above 0 and finite"),
    ({"most": 3}, [3, -9, 2.5], [4], "at most 3"),
    ({"most": 3}, [3.0], [3.5, NAN, -INF], "at most 3 and finite"),
    ({"below": 3}, [2, -9], [3, 4], "below 3"),
    ({"below": 3}, [2.5], [3.0, NAN, -INF], "below 3 and finite"),
    ({"least": 0, "most": 1}, [0, 1, 0.5], [-1, 2, 1.5, NAN, INF], "in [0, 1]"),
    ({"least": 0, "below": 1}, [0, 0.99], [1, 1.0, -0.1, NAN], "in [0, 1)"),
    ({"above": 0, "most": 1}, [1, 0.01], [0, 0.0, 1.01, NAN], "in (0, 1]"),
    ({"above": 0, "below": 1}, [0.5], [0, 1, 1.0, NAN], "in (0, 1)"),
    ({"least": 0, "below": 2**32}, [0, 2**32 - 1], [2**32, -1], "in [0, 4294967296)"),
    ({"least": 0.25, "most": 0.5}, [0.25, 0.5], [0.2], "in [0.25, 0.5]"),
    ({}, [0.5, -1e308, 3], [NAN, INF, -INF], "finite"),
    ({"choices": ("a", "b")}, ["a", "b"], ["", "c", "A", 1, None], "one of ('a', 'b')"),
    ({"choices": (1, 2)}, [1, 2], [0, 3], "one of (1, 2)"),
    ({"least": 1}, [(), (1, 2), []], [(0,), (1, 0)], "a tuple of values at least 1"),
    ({"least": 1, "some": True}, [(1,), (1, 2)], [(), (0,), (1, 0)],
     "a non-empty tuple of values at least 1"),
    ({"above": 0, "most": 1, "some": True}, [(1.0, 0.5)], [(), (0.5, NAN), (INF,)],
     "a non-empty tuple of values in (0, 1]"),
    ({"choices": ("a", "b")}, [(), ("a",)], [("a", "c")], "a tuple of values one of ('a', 'b')"),
    ({"some": True}, [("a",), ("",)], [()], "a non-empty tuple of values finite"),
    ({"least": 0}, [], [True, "1", None], "at least 0"),  # of another type, which `dlen_cam2.config` refuses first
    ({}, [True, "", "x", ("x",)], [], ""),
], ids=str)
def test_an_option_holds_or_says_its_rule(rule, good, bad, words):
    assert [value for value in good if checked(value, **rule)] == []
    assert {checked(value, **rule) for value in bad} <= {words} and all(checked(value, **rule) for value in bad)


OWN = """
import dataclasses
from dlen_cam2.models.parts import Trunk
from dlen_cam2.parts import trunk

@trunk("installed")
@dataclasses.dataclass
class Installed(Trunk):
    pass
"""


def test_installed_packages_name_their_parts_by_entry_points(tmp_path, monkeypatch, registry):
    """As a package that is installed beside ours; what is not imported is one message."""
    (tmp_path / "of_a_package.py").write_text(OWN)
    described = tmp_path / "of_a_package-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: of-a-package\nVersion: 1.0\n")
    points = described / "entry_points.txt"
    points.write_text("[dlen_cam2.parts]\ninstalled = of_a_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parts, "_loaded", set(parts.HOMES))
    assert parts.find("trunk", "installed", "the trunk").__module__ == "of_a_package"
    points.write_text("[dlen_cam2.parts]\nabsent = of_no_package\n")
    monkeypatch.setattr(parts, "_loaded", set(parts.HOMES))
    with pytest.raises(UserError, match="the entry point 'absent' of dlen_cam2.parts must be a module with parts"):
        parts.classes("trunk")


def test_a_key_that_is_elsewhere_is_named_with_its_place():
    assert parts.elsewhere(Config, ["experts"]) == " There is config.model.trunk.experts of cgc, mmoe, ple."
    assert parts.elsewhere(Config, ["cam2"]) == " There is config.model.causal=cam2."
    assert "config.train.learning_rate and config.train.step_rule.learning_rate of" in parts.elsewhere(
        Config, ["learning_rate"])
    assert parts.elsewhere(Config, ["nothing"]) == ""
