"""What is a list of values on the command line, and what is one value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmaml.config.strict_yaml import parse_yaml
from fmaml.errors import Error
from fmaml.sweep.plan import parts_of, values_of

NUMBERS = st.integers(-99, 99).map(str)
WORDS = st.text("abc_-./", min_size=1, max_size=5)
QUOTED = st.text("ab,[]{}: ", max_size=6).flatmap(lambda text: st.sampled_from([f"'{text}'", f'"{text}"']))
LISTS = st.lists(st.one_of(NUMBERS, QUOTED), max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
MAPPINGS = st.one_of(NUMBERS, QUOTED, LISTS).map(lambda value: f"{{name: {value}, lr: 1}}")
VALUES = st.one_of(NUMBERS, WORDS, QUOTED, LISTS, MAPPINGS)


@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([",", ", ", " ,"]))
def test_values_with_commas_between_come_apart_again(values, comma):
    assert parts_of(comma.join(values)) == [value.strip() for value in values]


@given(st.one_of(QUOTED, LISTS, MAPPINGS))
def test_what_yaml_reads_as_one_value_in_brackets_or_quotes_is_one_part(text):
    parse_yaml(text, "here")
    assert parts_of(text) == [text]


@given(st.text(max_size=20))
def test_nothing_is_lost_of_any_text(text):
    assert "".join(",".join(parts_of(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("algorithm.inner_lr=0.1,0.4", ["0.1", "0.4"]),
        (" seed = 0, 1 ", ["0", "1"]),
        ("model.hidden=[40,40]", None),
        ("model.hidden=[40,40],[80]", ["[40,40]", "[80]"]),
        ("model.hidden=40,40", None),  # neither is a list, so this is a mistake in one value
        ("data.ways=[3,8]", None),
        ("data.ways=3,8", ["3", "8"]),
        ("data.ways=[3,8],5", ["[3,8]", "5"]),
        ("data.root=a,b", None),  # a folder of that name
        ('data.root="a","b,c"', ['"a"', '"b,c"']),
        ("algorithm.name=maml,anil", ["maml", "anil"]),
        ("algorithm.nam=maml,anil", None),
        ("train.compile=true,auto", ["true", "auto"]),
        ("optimizer={name: adam, lr: 0.1}", None),
        ("optimizer={name: adam, lr: 0.1},{name: sgd, lr: 1}", ["{name: adam, lr: 0.1}", "{name: sgd, lr: 1}"]),
        ("algorithm.inner_lr=0.1,x", ["0.1", "x"]),  # so that x is named, alone
        ("algorithm.inner_lr=x,y", None),
        ("algorithm.inner_lr=0.1", None),
        ("algorithm.of_my_own=0.1,0.4", ["0.1", "0.4"]),  # a setting of code outside fmaml
        ("algorithm.of_my_own=[1,2]", None),
        ("algorithm.of_my_own=a,b", None),
        ('algorithm.of_my_own="a","b"', ['"a"', '"b"']),
    ],
)
def test_the_rule(override, values):
    key, _, text = override.partition("=")
    assert values_of(override) == (key.strip(), values or [text])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.meta_steps=10,000", "commas separate the values of several runs; write 10000 for one number"),
        ("seed=1,", "seed = 1,: a comma without a value"),
        ("seed=1,,2", "seed = 1,,2: a comma without a value"),
        ("1,2", "1,2: not an override; write section.key=value"),
    ],
)
def test_what_cannot_be_meant_is_refused(override, said):
    with pytest.raises(Error, match=said):
        values_of(override)
