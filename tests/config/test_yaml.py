"""YAML of config files: scalars of YAML 1.2, and broken files."""

from __future__ import annotations

import pytest

from mm_cpgd.config.loading import load_config
from tests.fakes.configs import Write, message


@pytest.mark.parametrize("text", ["1e-6", "1.0e-6", "1E-6", "0.000001", "+1e-6", ".1e-5"])
def test_a_float_in_scientific_notation_is_a_number_in_files_and_overrides(write: Write, text: str) -> None:
    from_file = load_config(write(f"  selection: [{{name: filter, low: {text}}}]\n"))
    from_override = load_config(write(), [f"algorithm.selection=[{{name: filter, low: {text}}}]"])
    assert from_file.algorithm.selection[0].options == {"low": 1e-6}
    assert from_override.algorithm.selection[0].options == {"low": 1e-6}


@pytest.mark.parametrize(
    ("text", "value"), [("no", "no"), ("on", "on"), ("010", "010"), ("2024-01-02", "2024-01-02")]
)
def test_words_and_dates_stay_strings(write: Write, text: str, value: str) -> None:
    assert load_config(write(), [f"policy.revision={text}"]).policy.revision == value


def test_a_mixed_precision_of_no_is_not_read_as_false(write: Write) -> None:
    assert load_config(write("training: {mixed_precision: no}\n")).training.mixed_precision == "no"


def test_broken_yaml_names_file_and_line(write: Write) -> None:
    text = message(write("seed: 1\nname: 'open\nrollout: {\n"))
    assert "run.yaml, line 13: broken YAML" in text
    assert "quoted scalar, line 11" in text


def test_a_key_written_twice_is_an_error_with_its_line(write: Write) -> None:
    text = message(write("seed: 1\nseed: 2\n"))
    assert "line 11" in text
    assert "'seed' is written twice" in text


def test_a_file_that_is_no_mapping_is_an_error(write: Write) -> None:
    assert "must hold sections" in message(write("- 1\n- 2\n", base=""))
