"""The numbers and tables of the benchmarks, and the page they are written to."""

from pathlib import Path

import pytest

from bench import measurement, rounds
from bench.__main__ import PARTS
from bench.measurement import Table, publish, ratio
from bench.rounds import compare, noise_note

pytestmark = pytest.mark.slow


def test_each_round_begins_with_another_contender() -> None:
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 1.0

    samples = compare({"a": lambda: contender("a"), "b": lambda: contender("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert samples == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_a_machine_that_is_not_quiet_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of_others = iter([0.0, 0.0, 5.0, 5.0 + 3600 * 24])
    monkeypatch.setattr(rounds, "_seconds_of_others", lambda: next(of_others))
    noise_note()
    compare({"one": lambda: 1.0}, 2)
    assert "in 1 of 2 rounds" in noise_note()
    assert noise_note() == ""


def test_a_ratio_is_the_median_of_the_rounds_and_outlives_a_drift() -> None:
    samples = {"one": [10, 20, 400], "other": [5, 10, 100]}
    assert ratio(samples, "one", "other") == 2


def test_tables_take_the_place_between_a_parts_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- events -->\nold\n<!-- /events -->\nafter\n")
    monkeypatch.setattr(measurement, "PAGE", page)
    publish("events", [Table("Rates", ["", "a second"], [["portal", r"1\2"]])])
    text = page.read_text()
    assert text.startswith(
        "before\n<!-- events -->\n\n**Rates**\n\n|  | a second |\n| --- | --- |\n| portal | 1\\2 |\n"
    )
    assert text.endswith("\n<!-- /events -->\nafter\n")
    assert "old" not in text


def test_a_part_without_marks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("nothing")
    monkeypatch.setattr(measurement, "PAGE", page)
    with pytest.raises(ValueError, match="events"):
        publish("events", [])


def test_the_page_has_a_place_for_each_part() -> None:
    page = measurement.PAGE.read_text()
    assert [part for part in PARTS if f"<!-- {part} -->" not in page or f"<!-- /{part} -->" not in page] == []
