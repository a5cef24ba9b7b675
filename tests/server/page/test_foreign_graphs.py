"""Workflows of other packs, as they saved them: the page offers our nodes, and the picture is the one they meant."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from control_composer.tests.server.foreign import FOREIGN, REPLACES
from control_composer.tests.server.foreign_parts import TITLE


@pytest.fixture(scope="module")
def page(open_page: Any) -> Iterator[Any]:
    with open_page() as opened:
        yield opened
        assert opened.errors == []


def pictures(page: Any, entry: dict[str, Any]) -> np.ndarray:
    (output,) = [output for output in entry["outputs"].values() if output["images"][0]["type"] == "output"]
    return np.stack([page.server.picture(saved) for saved in output["images"]])


@pytest.mark.parametrize("name", list(FOREIGN))
def test_it_opens_and_runs_as_it_was_meant(page: Any, server: Any, name: str) -> None:
    workflow, meant = FOREIGN[name]()
    page.load(workflow)
    missing = page.missing()
    assert bool(missing) == (name in REPLACES)
    if missing:
        page.replace_missing()
    page.comes_to(page.missing, [])
    entry = page.queue()
    assert entry["status"]["status_str"] == "success", entry["status"]
    wanted = server.run(meant).pictures[TITLE]
    found = pictures(page, entry)
    assert np.array_equal(found, wanted), f"{name}: pictures differ by {np.abs(found.astype(int) - wanted).max()}"
