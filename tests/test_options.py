"""Options are typed strictly, bounded, documented, and answered in words when they are wrong."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micronet.errors import MicronetError, OptionError
from micronet.options import build, describe, option


@attrs.frozen(kw_only=True)
class Example:
    """One option of each type."""

    name: str = option(doc="Required.")
    bits: int = option(8, ge=2, le=16, doc="Between two bounds.")
    lr: float = option(1e-3, gt=0, doc="Above a bound.")
    percent: float = option(0.5, gt=0, le=0.95, doc="Above one bound and at most another.")
    least: int = option(1, ge=1, doc="At least.")
    free: float = option(0.0, doc="No bounds.")
    flag: bool = option(default=False, doc="A flag.")
    mode: Literal["fast", "exact"] = option("fast", doc="A choice.")
    level: Literal[1, 2] = option(1, doc="A choice of numbers.")
    limit: int | None = option(None, ge=1, doc="May be null.")
    sizes: tuple[int, ...] = option((1, 2), doc="Several.")
    pair: tuple[int, int] = option((1, 2), doc="Exactly two.")
    extra: Mapping[str, Any] = option(attrs.Factory(dict), doc="Anything.")


def example(**values):
    return build(Example, {"name": "a", **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": "8"}, "bits must be an integer, got '8'."),
        ({"bits": True}, "bits must be an integer, got True."),
        ({"bits": 8.0}, "bits must be an integer, got 8.0."),
        ({"bits": None}, "bits must be an integer, got None."),
        ({"bits": [8]}, "bits must be an integer, got (8,)."),
        ({"lr": "1e-3"}, "lr must be a number, got '1e-3'."),
        ({"lr": True}, "lr must be a number, got True."),
        ({"flag": 1}, "flag must be true or false, got 1."),
        ({"flag": "yes"}, "flag must be true or false, got 'yes'."),
        ({"name": 3}, "name must be a text, got 3."),
        ({"mode": "slow"}, "mode must be one of 'fast', 'exact', got 'slow'."),
        ({"level": 3}, "level must be one of 1, 2, got 3."),
        ({"limit": "none"}, "limit must be an integer or null, got 'none'."),
        ({"limit": 1.5}, "limit must be an integer or null, got 1.5."),
        ({"sizes": 3}, "sizes must be a list of int, got 3."),
        ({"sizes": [1, "2"]}, "sizes must be a list of int, got (1, '2')."),
        ({"sizes": [1, True]}, "sizes must be a list of int, got (1, True)."),
        ({"extra": [1]}, "extra must be a mapping, got (1,)."),
    ],
)
def test_a_wrong_type_is_refused_in_words(values, message):
    with pytest.raises(OptionError) as caught:
        example(**values)
    assert str(caught.value) == message
    assert caught.value.option == next(iter(values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": 1}, "bits must be between 2 and 16, got 1."),
        ({"bits": 17}, "bits must be between 2 and 16, got 17."),
        ({"lr": 0}, "lr must be above 0, got 0."),
        ({"lr": -1e-3}, "lr must be above 0, got -0.001."),
        ({"percent": 1}, "percent must be above 0 and at most 0.95, got 1."),
        ({"least": 0}, "least must be at least 1, got 0."),
        ({"limit": 0}, "limit must be at least 1, got 0."),
        ({"lr": math.inf}, "lr must be above 0, got inf."),
        ({"free": math.inf}, "free must be a finite number, got inf."),
        ({"free": -math.inf}, "free must be a finite number, got -inf."),
        ({"free": math.nan}, "free must be a finite number, got nan."),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(values, message):
    with pytest.raises(OptionError) as caught:
        example(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {"bits": 2},
        {"bits": 16},
        {"percent": 0.95},
        {"lr": 1},
        {"free": -7},
        {"flag": True},
        {"mode": "exact"},
        {"level": 2},
        {"limit": None},
        {"limit": 1},
        {"sizes": []},
        {"pair": [3, 4]},
        {"extra": {"a": 1}},
    ],
)
def test_a_value_within_type_and_range_is_taken(values):
    ((name, value),) = values.items()
    taken = getattr(example(**values), name)
    assert taken == (tuple(value) if isinstance(value, list) else value)


def test_a_flag_is_no_choice_of_numbers():
    with pytest.raises(OptionError, match="level must be one of 1, 2, got True"):
        example(level=True)


def test_a_list_of_exactly_two_takes_no_three():
    with pytest.raises(OptionError, match="pair"):
        example(pair=[1, 2, 3])


def test_a_value_just_beyond_a_bound_is_told_with_all_its_digits():
    with pytest.raises(OptionError, match=r"got 0\.9500001"):
        example(percent=0.9500001)


def test_a_number_too_large_for_a_float_is_refused_in_words():
    with pytest.raises(OptionError, match="bits must be between 2 and 16"):
        example(bits=10**400)


def test_an_integer_stays_an_integer_in_a_field_of_floats():
    assert example(free=3).free == 3


def test_lists_become_tuples_all_the_way_down():
    @attrs.frozen
    class Nested:
        grid: tuple[Any, ...] = option(doc="Lists in a list.")

    assert build(Nested, {"grid": [[1, 2], [3]]}).grid == ((1, 2), (3,))


def test_an_unknown_option_is_answered_with_the_nearest_and_all():
    with pytest.raises(OptionError) as caught:
        build(Example, {"bit": 8}, owner="the example")
    message = str(caught.value)
    assert message.startswith("the example has no option 'bit'. Did you mean 'bits'?")
    assert "Allowed: name, bits, lr," in message
    assert caught.value.option == "bit"


def test_an_unknown_option_that_is_no_text_is_refused_in_words():
    with pytest.raises(OptionError, match="has no option 8"):
        build(Example, {8: True, "name": "a"})


def test_a_missing_required_option_is_named():
    with pytest.raises(OptionError, match="the example needs the option 'name'") as caught:
        build(Example, {}, owner="the example")
    assert caught.value.option == "name"


def test_an_option_error_is_caught_as_micronets_and_as_a_value_error():
    with pytest.raises(MicronetError):
        example(bits=99)
    with pytest.raises(ValueError, match="bits"):
        example(bits=99)


def test_python_code_is_checked_as_strictly_as_a_recipe():
    with pytest.raises(OptionError, match="bits must be an integer"):
        Example(name="a", bits="8")


def test_the_description_tells_type_default_range_and_doc():
    told = {info.name: info for info in describe(Example)}
    assert list(told)[:3] == ["name", "bits", "lr"]
    assert (told["name"].required, told["name"].default) == (True, None)
    assert (told["bits"].required, told["bits"].default) == (False, 8)
    assert [told[n].range for n in ("bits", "lr", "percent", "least", "free")] == [
        "between 2 and 16",
        "above 0",
        "above 0 and at most 0.95",
        "at least 1",
        None,
    ]
    assert [told[n].type for n in ("name", "mode", "limit", "sizes")] == [
        "str",
        "'fast' | 'exact'",
        "int | None",
        "tuple[int, ...]",
    ]
    assert told["bits"].doc == "Between two bounds."


@given(st.integers())
def test_an_integer_is_taken_exactly_when_it_is_in_range(value):
    if 2 <= value <= 16:
        assert example(bits=value).bits == value
    else:
        with pytest.raises(OptionError):
            example(bits=value)


@given(st.floats())
def test_a_number_is_taken_exactly_when_it_is_finite_and_in_range(value):
    if 0 < value <= 0.95:
        assert example(percent=value).percent == value
    else:
        with pytest.raises(OptionError, match="percent must be above 0 and at most"):
            example(percent=value)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.sampled_from([field.name for field in attrs.fields(Example)]), JUNK)
def test_whatever_a_recipe_holds_is_taken_or_refused_in_words(name, value):
    try:
        example(**{name: value})
    except OptionError as error:
        told = (error.option, str(error))
    else:
        return
    assert told[0] == name
    assert told[1].startswith(f"{name} must be ")


@given(st.text(min_size=1, max_size=8))
def test_any_unknown_name_is_refused_by_its_name(name):
    if name not in {field.name for field in attrs.fields(Example)}:
        with pytest.raises(OptionError) as caught:
            example(**{name: 1})
        assert caught.value.option == name


@attrs.frozen(kw_only=True)
class Bounded:
    """Bounds that any machine has."""

    count: int = option(1, ge=1, most=10**6, doc="At least.")
    lr: float = option(1e-3, gt=0, least=1e-30, most=1e12, doc="Above.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0."),
        ({"count": 10**6 + 1}, "count must be at most 1000000, got 1000001."),
        ({"lr": 0}, "lr must be above 0, got 0."),
        ({"lr": 1e-31}, "lr must be at least 1e-30, got 1e-31."),
        ({"lr": 2e12}, "lr must be at most 1e+12, got 2000000000000.0."),
        ({"lr": 10**5000}, "lr must be at most 1e+12, got a number of thousands of digits."),
    ],
)
def test_a_bound_of_every_machine_is_told_to_who_exceeds_it(values, message):
    with pytest.raises(OptionError) as caught:
        build(Bounded, values)
    assert str(caught.value) == message
    assert [info.range for info in describe(Bounded)] == ["at least 1", "above 0"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extra": {"a": [1.0, math.nan]}}, "extra must be a finite number, got nan."),
        ({"extra": {"a": {"b": math.inf}}}, "extra must be a finite number, got inf."),
        ({"sizes": [2**63]}, f"sizes must be an integer of at most 64 bits, got {2**63}."),
    ],
)
def test_a_number_inside_a_list_or_mapping_must_be_finite_too(values, message):
    with pytest.raises(OptionError) as caught:
        example(**values)
    assert str(caught.value) == message


def test_all_that_is_wrong_is_told_beside_the_first():
    with pytest.raises(OptionError) as caught:
        build(Example, {"bits": 1, "bit": 8, "lr": 0}, owner="it")
    first, *others = caught.value, *caught.value.others
    assert str(first).startswith("it has no option 'bit'.")
    assert [(str(other), other.option) for other in others] == [
        ("it needs the option 'name'.", "name"),
        ("it: bits must be between 2 and 16, got 1.", "bits"),
        ("it: lr must be above 0, got 0.", "lr"),
    ]
