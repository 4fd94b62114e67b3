"""The statements of an event, from Postgres' log."""

from pathlib import Path

from bench.profile import logged_statements


def test_no_statement_is_missed_after_text_in_other_letters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = "LOG:  duration: 1.000 ms  execute portal_0: SELECT 'Ana Kovač'\n"
    log.write_text(f"{before}LOG:  duration: 0.029 ms  bind portal_1:\n\tSELECT 1\nDETAIL:  Parameters: $1 = '1'\n")
    assert list(logged_statements(log, len(before.encode()))) == ["0.029 ms bind portal_1: SELECT 1"]
