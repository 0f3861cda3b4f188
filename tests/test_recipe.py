"""Recipes: what is written is read back, and every mistake is named at once."""

from __future__ import annotations

import dataclasses
import math
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate import recipe as recipes
from acclimate.errors import UserError
from acclimate.recipe import Recipe, as_override, difference, load, names, parse, to_dict, to_yaml

DEFAULTS = recipes.flatten(to_dict(Recipe()))


def _hints(section=Recipe, prefix=""):
    """Every dotted key with its type."""
    for name, hint in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(hint):
            yield from _hints(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


HINTS = dict(_hints())
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


def _values(key: str) -> st.SearchStrategy:
    """Valid values of a key: 0.25 … 0.75, 1 … 9, 64 … 999 and 0.5 … 2 lie within all ranges by key name."""
    hint = HINTS[key]
    if key == "data.crop":
        return st.tuples(st.integers(32, 999), st.integers(32, 999)).map(list)
    if key == "data.scale":
        return st.tuples(st.floats(0.1, 1), st.floats(1, 4)).map(list)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    return {
        int: st.integers(1, 9999),
        float: st.floats(0.001, 0.999),
        bool: st.booleans(),
        str: TEXT,
    }[hint]


CONDITIONAL = {
    "method", "network.extra_norm", "distill.extra_norm", "selflabel.bank_labels", "selflabel.teacher_view",
    "optimizer.accumulate",
}  # fmt: skip
"""Keys that ask something of other keys."""
CHOICES = st.lists(st.sampled_from(sorted(HINTS.keys() - CONDITIONAL)), max_size=12, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: _values(key) for key in keys})
)


def _tree(choices: dict) -> dict:
    tree: dict = {}
    for key, value in choices.items():
        *sections, leaf = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = value
    return tree


@settings(max_examples=40)
@given(CHOICES)
def test_what_is_written_is_read_back(choices):
    recipe = parse(_tree(choices))
    assert parse(to_dict(recipe)) == recipe
    assert parse(yaml.safe_load(to_yaml(recipe))) == recipe
    assert recipes.flatten(to_dict(recipe)) == DEFAULTS | choices


def test_a_method_sets_keys_that_the_recipe_may_set_otherwise():
    recipe = parse({"method": "official", "selflabel": {"cutmix_by": "image"}, "network": None})
    expected = DEFAULTS | recipes.OFFICIAL | {"method": "official", "selflabel.cutmix_by": "image"}
    assert recipes.flatten(to_dict(recipe)) == expected
    assert parse(to_dict(recipe)) == recipe
    assert set(recipes.OFFICIAL) <= set(DEFAULTS)
    with pytest.raises(UserError, match="selflabel: expected a section"):
        parse({"method": "official", "selflabel": 3})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"selflabel": {"bank_labels": "misplaced"}}, "set selflabel.stratified: false"),
        ({"selflabel": {"teacher_view": "whole"}, "data": {"crop": [100, 104]}}, "multiples of 8"),
        ({"selflabel": {"teacher_view": "whole"}, "network": {"architecture": "deeplab"}}, "network.loss_stride: 4"),
        ({"selflabel": {"weight_contrast": 1, "bank": 0}}, "nothing to contrast with"),
        ({"network": {"extra_norm": True}}, "only architecture deeplab"),
        ({"distill": {"extra_norm": True}}, "only architecture deeplab"),
        ({"network": {"architecture": "deeplab", "drop_path": 0.1}}, "deeplab leaves no branches out"),
        ({"optimizer": {"accumulate": 3}}, "source.batch is 8, which cannot be done in 3 equal parts"),
    ],
)
def test_choices_that_ask_for_another_choice(tree, message):
    with pytest.raises(UserError, match=message):
        parse(tree)


@given(choices=CHOICES)
def test_overrides_say_the_same_as_a_file(choices, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "defaults.yaml"
    file.write_text("# nothing but defaults\n")
    overrides = [as_override(key, value) for key, value in choices.items()]
    assert load(file, overrides) == parse(_tree(choices))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Recipe)]) | TEXT, inner, max_size=4)
        ),
    )
)
def test_nonsense_is_refused_and_never_crashes(value):
    try:
        recipe = parse({"data": value, "selflabel": {"iterations": value, "epsilon": value}, "augment": value})
    except UserError as error:
        assert "recipe" in str(error)
    else:
        assert isinstance(recipe, Recipe)


@pytest.mark.parametrize("name", names())
def test_built_in_recipes_load(name):
    assert isinstance(load(name), Recipe)
    assert recipes.read(name)[0].startswith("# "), "a built-in recipe begins with a line on what it is for"


def test_all_problems_are_listed_at_once():
    with pytest.raises(UserError) as caught:
        parse(
            {
                "selflable": {},
                "seed": "many",
                "data": {"width": 0, "crop": [16, 256], "scale": [2, 1]},
                "selflabel": {"temprature": 0.1, "cutmix": 1.5, "rectify": 1},
                "network": {"architecture": "unet"},
                "warmup": 3,
            },
            "my.yaml",
        )
    message = str(caught.value)
    assert message.startswith("my.yaml: 10 problems")
    for problem in (
        "selflable: unknown key (did you mean selflabel?)",
        "seed: expected a whole number, found 'many'",
        "data.width: must be greater than 0, found 0",
        "data.crop: height and width must be at least 32 pixels",
        "data.scale: expected [smallest, largest]",
        "selflabel.temprature: unknown key (did you mean temperature?)",
        "selflabel.cutmix: must lie in 0 … 1, found 1.5",
        "selflabel.rectify: expected true or false, found 1",
        "network.architecture: expected one of light, context, deeplab, found 'unet'",
        "warmup: expected a section with keys, found 3",
    ):
        assert problem in message


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"source": {"iterations": 0}}, "source.iterations"),
        ({"optimizer": {"ema": 1}}, "optimizer.ema"),
        ({"selflabel": {"alpha": 0, "beta": 0}}, "alpha and beta"),
        ({"selflabel": {"weight_source": 0, "weight_target": 0, "weight_consistency": 0}}, "nothing would be learned"),
        ({"distill": {"iterations": 0}}, "distill.rounds: 0"),
        ({"distill": {"weight_source": 0, "weight_target": 0, "weight_distill": 0}}, "nothing would be learned"),
    ],
)
def test_contradictions_are_named(tree, problem):
    with pytest.raises(UserError, match=problem):
        parse(tree)


def test_numbers_are_read_as_people_write_them(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("optimizer: {lr: 1e-4, weight_decay: 0}\ndata: {target: {path: 2024}}\n")
    recipe = load(file)
    assert recipe.optimizer.lr == 1e-4
    assert recipe.optimizer.weight_decay == 0.0
    assert recipe.data.target.path == "2024"


@pytest.mark.parametrize("value", [".inf", ".nan", "9" * 400])
def test_numbers_without_bounds_are_refused(value):
    with pytest.raises(UserError, match=r"optimizer.lr: expected a finite number"):
        load("laptop", [f"optimizer.lr={value}"])


def test_overrides_reach_into_empty_sections(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data:\nselflabel:\n  # temperature: 0.1\n")
    assert load(file, ["data.source.path=renders", "selflabel.bank=0"]).data.source.path == "renders"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("seed.first=1", "unknown key|expected a whole number|not a section"),
        ("data.crop=[1", "not valid YAML"),
        ("data.width=", "data.width: expected a whole number"),
    ],
)
def test_malformed_overrides_say_what_is_expected(override, message):
    with pytest.raises(UserError, match=message):
        load("laptop", [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_missing_recipes_are_named():
    with pytest.raises(UserError, match=r"absent\.yaml: no such recipe file"):
        load("absent.yaml")
    with pytest.raises(UserError, match=r"lapotp: neither .* \(did you mean laptop\?\)"):
        load("lapotp")


def test_only_what_matters_counts_as_a_difference():
    old = parse({"seed": 1})
    new = parse({"seed": 2, "device": "cuda", "log_every": 7, "data": {"workers": 3}})
    assert difference(old, new) == {"seed": (1, 2)}


def test_every_default_is_within_its_own_range():
    assert parse(to_dict(Recipe())) == Recipe()
    assert not any(isinstance(value, float) and math.isnan(value) for value in DEFAULTS.values())
