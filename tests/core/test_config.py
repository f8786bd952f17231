"""Configs: overrides, messages for every kind of wrong input, and a lossless round trip."""

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator, model_validator

from maskwright.core.config import (
    Config,
    apply_overrides,
    dump_config,
    nearest_name,
    parse_config,
    read_yaml,
)
from maskwright.core.errors import ConfigError, DataError


class Inner(Config):
    lr: float = 1e-3
    warmup_steps: int = 0


class Outer(Config):
    name: str = Field("run", min_length=1)
    kind: Literal["adamw", "sgd"] = "adamw"
    optimizer: Inner = Inner()
    extra: Inner | None = None
    parts: list[Inner] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    path: Path = Path("data")
    flag: bool = False
    betas: tuple[float, float] = (0.9, 0.98)

    @field_validator("name")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("must not contain a slash; use --output for a folder")
        return value

    @model_validator(mode="after")
    def _sgd_has_no_betas(self) -> "Outer":
        if self.kind == "sgd" and self.flag:
            raise ValueError("kind=sgd cannot be used with flag=true; set flag=false")
        return self


class Versioned(Config):
    format_version = 2
    hidden_size: int = 8

    @classmethod
    def upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any]:
        values = dict(values)
        if "width" in values:
            values["hidden_size"] = values.pop("width")
        return values


def parse(*overrides: str) -> Outer:
    return parse_config(Outer, apply_overrides({}, overrides), "recipe.yaml")


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*overrides)
    return str(caught.value)


def test_overrides_reach_nested_fields_with_yaml_types():
    config = parse("optimizer.lr=6e-4", "flag=true", "betas=[0.8, 0.9]", "extra={lr: 1}", "path=a/b=c")
    assert config.optimizer == Inner(lr=6e-4)
    assert config.flag is True
    assert config.betas == (0.8, 0.9)
    assert config.extra == Inner(lr=1.0)
    assert config.path == Path("a/b=c")


def test_overrides_leave_their_input_alone():
    values = {"optimizer": {"lr": 1.0}, "parts": [{"lr": 2.0}]}
    changed = apply_overrides(values, ["optimizer.lr=3", "extra.lr=4"])
    changed["parts"][0]["lr"] = 5.0
    assert values == {"optimizer": {"lr": 1.0}, "parts": [{"lr": 2.0}]}
    assert changed["optimizer"] == {"lr": 3}
    assert changed["extra"] == {"lr": 4}


def test_later_overrides_win():
    assert parse("flag=true", "flag=false").flag is False


def test_an_empty_section_can_be_filled():
    assert apply_overrides({"optimizer": None}, ["optimizer.lr=1"]) == {"optimizer": {"lr": 1}}


@pytest.mark.parametrize("text", ["flag", "=3", ".a=3", "a..b=3", "a.=3", ""])
def test_text_that_is_no_override(text):
    with pytest.raises(ConfigError, match=r"is not an override, expected key\.path=value") as caught:
        apply_overrides({}, [text])
    assert repr(text) in str(caught.value)


def test_an_override_through_a_plain_value():
    with pytest.raises(ConfigError, match=r"'a.b.c=3': a.b is 1, which has no keys inside"):
        apply_overrides({"a": {"b": 1}}, ["a.b.c=3"])


@pytest.mark.parametrize(
    "raw",
    [
        "[1",
        "2024-13-45",
        "0b_",
        "1" * 5000,
        "[" * 5000,
        "!!python/object:os.system {}",
        "!!int abc",
        "{[1]: 2}",
    ],
    ids=lambda raw: raw[:12],
)
def test_an_override_that_yaml_refuses(raw):
    with pytest.raises(ConfigError, match="the value is not valid YAML; put text in quotes"):
        apply_overrides({}, [f"a={raw}"])


def test_an_unknown_key_is_answered_with_its_path_and_the_nearest_name():
    assert message("optimzer.lr=1") == 'recipe.yaml: unknown key "optimzer"; did you mean "optimizer"?'
    assert message("optimizer.warmup=1").endswith(
        'unknown key "optimizer.warmup"; did you mean "warmup_steps"?'
    )
    assert message("optimizer.zzz=1").endswith('unknown key "optimizer.zzz"; known: lr, warmup_steps')


@pytest.mark.parametrize(
    ("override", "path"),
    [("extra.lrr=1", "extra.lrr"), ("parts=[{lrr: 1}]", "parts.0.lrr"), ("by_name.x.lrr=1", "by_name.x.lrr")],
)
def test_the_hint_knows_the_names_inside_optional_lists_and_mappings(override, path):
    assert message(override) == f'recipe.yaml: unknown key "{path}"; did you mean "lr"?'


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.lr=x", "\"optimizer.lr\" is 'x', expected number, unable to parse string as a number"),
        ("optimizer.lr=.nan", '"optimizer.lr" is nan, expected a finite number'),
        ("optimizer.lr=.inf", '"optimizer.lr" is inf, expected a finite number'),
        ("optimizer.warmup_steps=1.5", '"optimizer.warmup_steps" is 1.5, expected integer, got a number'),
        ("optimizer.warmup_steps=", '"optimizer.warmup_steps" is None, expected integer'),
        ("optimizer=3", '"optimizer" is 3, expected dictionary'),
        ("kind=adam", "\"kind\" is 'adam', expected 'adamw' or 'sgd'"),
        ("name=", '"name" is None, expected string'),
        ("name=2024-01-01", "\"name\" is datetime.date(2024, 1, 1), expected string"),
        ("name=''", "\"name\" is '': String should have at least 1 character"),
        ("name=a/b", '"name": must not contain a slash; use --output for a folder'),
        ("betas=[1]", '"betas.1" is missing; set it in the recipe or with betas.1=...'),
    ],
)  # fmt: skip
def test_a_wrong_value_names_key_value_and_expectation(override, expected):
    assert f"recipe.yaml: {expected}" in message(override)


def test_a_rule_over_several_fields_speaks_for_itself():
    assert (
        message("kind=sgd", "flag=true")
        == "recipe.yaml: kind=sgd cannot be used with flag=true; set flag=false"
    )


def test_all_faults_are_reported_together():
    lines = message("kind=adam", "nme=x", "optimizer.lr=fast").splitlines()
    assert len(lines) == 3


def test_keys_that_are_not_text():
    with pytest.raises(ConfigError, match='"1" is 1: Keys should be strings'):
        parse_config(Outer, {1: 2}, "recipe.yaml")


def test_a_missing_key():
    class Needs(Config):
        inner: Inner
        size: int

    with pytest.raises(ConfigError, match=r'"size" is missing; set it in the recipe or with size=\.\.\.'):
        parse_config(Needs, {"inner": {}}, "x")


def test_configs_are_frozen_and_replace_checks():
    config = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        config.flag = True  # type: ignore[misc]
    assert config.replace(flag=True, optimizer=Inner(lr=5.0)).optimizer.lr == 5.0
    assert config.flag is False
    with pytest.raises(ConfigError, match=r'replace\(\): unknown key "flagg"; did you mean "flag"\?'):
        config.replace(flagg=True)


def test_a_newer_format_is_refused():
    with pytest.raises(ConfigError, match=r"a\.yaml: format_version is 3, but this Maskwright reads up to 2"):
        parse_config(Versioned, {"format_version": 3}, "a.yaml")
    with pytest.raises(ConfigError, match="format_version is 'two'"):
        parse_config(Versioned, {"format_version": "two"}, "a.yaml")


def test_an_older_format_is_upgraded():
    assert parse_config(Versioned, {"format_version": 1, "width": 3}, "x").hidden_size == 3
    assert parse_config(Outer, {"format_version": 0}, "x") == Outer()
    with pytest.raises(ConfigError, match='unknown key "width"'):
        parse_config(Versioned, {"format_version": 2, "width": 3}, "x")


@settings(deadline=None)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1),
    lr=st.floats(allow_nan=False, allow_infinity=False),
    steps=st.integers(-(2**62), 2**62),
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=3),
)
def test_dump_and_parse_are_inverse(name, lr, steps, keys):
    inner = Inner(lr=lr, warmup_steps=steps)
    config = Outer(name=name, optimizer=inner, parts=[inner], by_name=dict.fromkeys(keys, inner))
    text = dump_config(config)
    assert text.startswith("format_version: 1\n")
    assert parse_config(Outer, yaml.safe_load(text), "x") == config


@pytest.mark.parametrize(
    "name", ["yes", "1e3", "null", "~", "1:30", "0x10", "2024-01-01", " x ", "a\nb", "é\u2028", "\x85"]
)
def test_names_that_look_like_something_else_survive(name, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(dump_config(Outer(name=name)), encoding="utf-8")
    assert parse_config(Outer, read_yaml(path), "x").name == name


def test_nearest_name():
    assert nearest_name("roberta-bas", ["roberta-base", "tiny"]) == '; did you mean "roberta-base"?'
    assert nearest_name("zzz", ["b", "a"]) == "; known: a, b"
    assert nearest_name("zzz", []) == "; known: none"


def test_read_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffa: {b: [1, true, é]}\n".encode())
    assert read_yaml(path) == {"a": {"b": [1, True, "é"]}}
    path.write_bytes(b"# nothing\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    "data",
    [b"a: [1", b"a: \xff", b"a: \x00", b"a: 2024-13-45", b"a: " + b"[" * 5000, b"a: &x [*x]", b"a: b: c"],
    ids=["open", "latin1", "nul", "date", "deep", "loop", "nested"],
)  # fmt: skip
def test_read_yaml_refuses_what_is_not_yaml(tmp_path, data):
    path = tmp_path / "a.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.yaml: is not valid YAML \("):
        read_yaml(path)


def test_read_yaml_names_the_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: [2\nc: 3\n")
    with pytest.raises(ConfigError, match="line 3"):
        read_yaml(path)


def test_read_yaml_wants_a_mapping(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: holds a list, expected a mapping of keys"):
        read_yaml(path)


def test_read_yaml_of_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file; check the path"):
        read_yaml(tmp_path / "none.yaml")
