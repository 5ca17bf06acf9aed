"""Attacks by files and texts from others hold, and would succeed without protection."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.attacks import ATTACKS, SCRIPT, SECRET, Place, breach, check_page


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_holds(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    assert breach(ATTACKS[name].run, Place(tmp_path / "place", tiny_folder)) is None


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.control])
def test_the_payload_of_an_attack_is_executed_without_protection(name: str, tmp_path: Path) -> None:
    control = ATTACKS[name].control
    assert control is not None
    assert breach(control, Place(tmp_path / "place", tmp_path)) == "its code was executed"


def test_files_that_are_written_or_changed_beside_the_folder_are_a_breach(tmp_path: Path) -> None:
    def write(place: Place) -> None:
        (place.inside / ".." / "x").write_text("x")
        (place.root / "secret.txt").write_text("y")
        (place.root / "outside" / "kept").unlink()

    assert breach(write, Place(tmp_path / "place", tmp_path)) == "it changed outside/kept, secret.txt, x"


@pytest.mark.parametrize(
    "page", [f"<p>{SCRIPT}", "<a href=' javascript:x'>", "<b onclick=x>", f"<p>{SECRET}</p>"]
)
def test_a_page_with_a_script_or_the_secret_is_a_breach(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page)
    with pytest.raises(AssertionError):
        check_page(tmp_path / "page.html")
