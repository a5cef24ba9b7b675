"""docs/evaluation.md against the tables in the code."""

from pathlib import Path

import pytest

from control_composer.evaluation.fidelity import MEASURES, UNMEASURED
from control_composer.evaluation.sets import INCEPTION_ADDRESS
from control_composer.preprocessors import PREPROCESSORS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_table_has_every_preprocessor_beside_its_measure() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    told = {row[0]: (row[1].split(", "), row[2]) for row in rows}
    for measure in dict.fromkeys(MEASURES.values()):
        names, score = told[measure.name]
        assert set(names) == {one.name for one in PREPROCESSORS if MEASURES.get(one.id) is measure}
        assert ("higher is better" if measure.higher_is_better else "lower is better") in score


@pytest.mark.parametrize("name", [one.name for one in PREPROCESSORS if one.id in UNMEASURED])
def test_what_has_no_measure_is_named(name: str) -> None:
    assert name in PAGE


def test_the_address_is_the_codes() -> None:
    assert f"({INCEPTION_ADDRESS})" in PAGE
