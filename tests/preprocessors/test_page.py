"""The table of preprocessors in the documentation is the one in the code."""

from __future__ import annotations

from pathlib import Path

from control_composer.preprocessors.page import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "preprocessors.md"


def test_the_table_of_the_page() -> None:
    """`python host.py python -m control_composer.preprocessors.page` prints the new one."""
    assert f"\n{table()}\n" in PAGE.read_text(encoding="utf-8")
