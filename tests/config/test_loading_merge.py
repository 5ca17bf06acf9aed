"""Properties of the merge of configs: ``extends``, file, overrides and recipe."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mm_cpgd.config.loading import _merge

# Keys in capitals hold sections, the others values, so that a key has the same kind everywhere.
values = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
leaves = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)
sections = st.recursive(
    leaves,
    lambda inner: st.tuples(leaves, st.dictionaries(st.sampled_from("AB"), inner, max_size=2)).map(
        lambda both: {**both[0], **both[1]}
    ),
    max_leaves=4,
)
parts = st.fixed_dictionaries(
    {"name": st.sampled_from(["clip", "ppo"])},
    optional={"low": st.integers(0, 3), "high": st.integers(0, 3)},
)
few_examples = settings(max_examples=60, deadline=None)


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def algorithm(part: dict[str, Any]) -> dict[str, Any]:
    return {"algorithm": {"surrogate": part}}


@few_examples
@given(base=sections)
def test_a_config_merged_with_itself_or_with_nothing_is_unchanged(base: dict[str, Any]) -> None:
    assert _merge(base, base) == _merge(base, {}) == _merge({}, base) == base


@few_examples
@given(a=sections, b=sections, c=sections)
def test_a_chain_of_sections_merges_the_same_from_either_end(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    assert _merge(_merge(a, b), c) == _merge(a, _merge(b, c))


@few_examples
@given(base=sections, top=sections)
def test_merging_twice_equals_merging_once(base: dict[str, Any], top: dict[str, Any]) -> None:
    assert _merge(_merge(base, top), top) == _merge(base, top)


@few_examples
@given(base=sections, top=sections)
def test_every_value_comes_from_the_top_if_it_has_the_key(base: dict[str, Any], top: dict[str, Any]) -> None:
    assert flat(_merge(base, top)) == {**flat(base), **flat(top)}


@few_examples
@given(base=sections, top=sections)
def test_a_merge_changes_neither_of_its_inputs_and_shares_nothing_with_them(
    base: dict[str, Any], top: dict[str, Any]
) -> None:
    before = copy.deepcopy((base, top))
    merged = _merge(base, top)
    for value in merged.values():
        if isinstance(value, list):
            value.append("changed")
        elif isinstance(value, dict):
            value["changed"] = True
    assert (base, top) == before


@few_examples
@given(base=parts, top=parts)
def test_a_part_inherits_options_only_from_a_part_of_the_same_name(
    base: dict[str, Any], top: dict[str, Any]
) -> None:
    merged = _merge(algorithm(base), algorithm(top))["algorithm"]["surrogate"]
    assert merged == ({**base, **top} if base["name"] == top["name"] else top)


@few_examples
@given(base=parts, top=parts)
def test_a_part_without_a_name_changes_options_of_the_part_below(
    base: dict[str, Any], top: dict[str, Any]
) -> None:
    options = {key: value for key, value in top.items() if key != "name"}
    assert _merge(algorithm(base), algorithm(options))["algorithm"]["surrogate"] == {**base, **options}
