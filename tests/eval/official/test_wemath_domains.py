"""Accuracy of We-Math's domains, by hand."""

import json

import pytest

from eval.official.wemath import Row
from eval.official.wemath_domains import DOMAINS, domain_accuracy
from tests.paths import DATASETS

TESTMINI = DATASETS / "wemath/testmini.json"


def test_a_domain_is_the_mean_of_its_concepts_whatever_their_sizes():
    rows = [
        *(Row(f"a{i}", "2steps_1", True, "Translation") for i in range(3)),
        Row("b1", "2steps_1", False, "Rotation"),
        Row("b2", "2steps_1", True, "Rotation"),
        Row("b2", "2steps_multi", True, "Rotation;Translation"),
        Row("c", "2steps_1", True, "Up-Down Position"),
    ]
    found = domain_accuracy(rows)
    assert found["Basic Transformations of Figures"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["Position"] == 1
    assert found["Direction"] is None


def test_there_are_twelve_domains_of_sixty_seven_different_concepts():
    concepts = [one for own in DOMAINS.values() for one in own]
    assert (len(DOMAINS), len(concepts), len(set(concepts))) == (12, 67, 67)


@pytest.mark.shared
def test_every_concept_of_the_real_table_has_a_domain():
    if not TESTMINI.exists():
        pytest.skip(f"needs {TESTMINI}")
    records = json.loads(TESTMINI.read_text())
    single = {one["knowledge concept"] for one in records if not one["key"].endswith("multi")}
    assert single == {one for own in DOMAINS.values() for one in own}
