"""Result files of runs and their keys."""

from __future__ import annotations

import pytest

from mm_cpgd.errors import UserError
from mm_cpgd.study.grid import config_of
from mm_cpgd.study.results import key_of, read_run, run_file, write_run
from tests.fakes.study import GRID, TRIAL, made_up


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = made_up(TRIAL, GRID, tmp_path, 0.5)
    write_run(tmp_path, result)
    assert read_run(tmp_path, TRIAL) == result


def test_a_damaged_result_is_named(tmp_path):
    write_run(tmp_path, made_up(TRIAL, GRID, tmp_path, 0.5))
    run_file(tmp_path, TRIAL).write_text('{"trial": ')
    with pytest.raises(UserError, match="cpgd-lr1e-4-u4-s1"):
        read_run(tmp_path, TRIAL)


def test_the_key_changes_with_any_setting_but_not_with_the_folder(tmp_path):
    keys = [
        key_of(config_of(TRIAL, folder, changes))
        for folder, changes in (
            (tmp_path, ()),
            (tmp_path / "b", ()),
            (tmp_path, ("rollout.temperature=0.9",)),
        )
    ]
    assert keys[0] == keys[1] != keys[2]
