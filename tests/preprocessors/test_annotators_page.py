"""What docs/annotators.md says of the annotators' files, and what the tables must say of each."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from control_composer.preprocessors.annotators import ANNOTATORS, Annotator
from control_composer.preprocessors.annotators.page import PAGE, page
from control_composer.preprocessors.downloads import is_plain


def test_the_page_is_that_of_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run `python host.py python -m control_composer.preprocessors.annotators.page`"
    )


@pytest.mark.parametrize("annotator", ANNOTATORS, ids=lambda annotator: annotator.id)
def test_every_file_can_be_downloaded_and_put_away(annotator: Annotator) -> None:
    for file in annotator.files:
        assert is_plain(file.name)
        assert re.fullmatch(r"https://(huggingface\.co|github\.com)/[\w./-]+", file.address)
        assert file.address.endswith(f"/{file.name}") and ".." not in file.address
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.bytes >= 0
        if annotator.folder:
            assert file.repository == annotator.folder
    assert len(annotator.files) == 1 or annotator.folder
    assert annotator.folder == "" or all(is_plain(part) for part in annotator.folder.split("/"))
    assert annotator.licence and annotator.commercial


def test_no_two_files_have_one_place_or_one_sum() -> None:
    places = [(annotator.folder, file.name) for annotator in ANNOTATORS for file in annotator.files]
    assert len(set(places)) == len(places)
    sums = [file.sha256 for file in chain.from_iterable(one.files for one in ANNOTATORS) if file.sha256]
    assert len(set(sums)) == len(sums)
