"""A real browser for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.chromium import Chromium, find_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Chromium with an empty profile; skips the test where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium in the PATH: the page is not tested in a browser")
    with Chromium(str(program), tmp_path_factory.mktemp("profile")) as found:
        yield found
