"""The page opens with our scripts, in both renderers and in each language, and nobody complains."""

from typing import Any

import pytest

RENDERERS = ["canvas", "nodes"]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_page_opens_without_a_complaint(open_page: Any, renderer: str) -> None:
    with open_page(renderer=renderer) as page:
        assert page.js("() => app.extensionManager.setting.get('Comfy.VueNodes.Enabled')") == (renderer == "nodes")
        assert page.errors == []
