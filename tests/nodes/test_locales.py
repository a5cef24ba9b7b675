"""The page's languages: every word of every node and of our scripts, in the form that the page reads."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control_composer.page import locales
from control_composer.page.locales import CATEGORIES, ENGLISH, LOCALES, Key, Words

WEB = Path(__file__).resolve().parents[2] / "web"
COMPLETE = locales.LANGUAGES
"""The languages in which nothing may be missing."""
OURS = "controlComposer"
SYNTAX = "@{}|%"
"""What vue-i18n would not show as it is."""
NAMES = {
    "Control Composer",
    *(
        f"{name} (Control Composer)"
        for name in ("AnyLine", "Canny", "DWPose", "Depth Anything", "Depth Pro", "NormalBAE")
    ),
    *(f"{name} (Control Composer)" for name in ("OpenPose", "Segment Anything", "ViTPose")),
    "a",
}
"""What is the same in every language: names of methods, and a letter of a formula."""
WORDS_AS_IN_ENGLISH = {"blockWeightsPreset_resolution"}
"""Words of scripts that are a formula."""


def script_words(language: str) -> dict[str, str]:
    found: dict[str, str] = locales.main_words(language)[OURS]
    return found


def says_something(sentence: str) -> bool:
    """Beside what is filled in."""
    return re.search(r"[^\W\d_]", re.sub(r"\{\w+\}", "", sentence)) is not None


def fields(sentence: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", sentence))


@pytest.fixture(scope="module")
def english(every_node: list[Any]) -> Words:
    return locales.words_of(every_node)


def test_english_is_what_the_nodes_say(english: Words, tmp_path: Path) -> None:
    """Write it anew with `python host.py python -m control_composer.page.locales`."""
    (tmp_path / ENGLISH).mkdir()
    (tmp_path / ENGLISH / "main.json").write_bytes((LOCALES / ENGLISH / "main.json").read_bytes())
    locales.write(ENGLISH, english, tmp_path)
    for name in ("nodeDefs.json", "main.json"):
        written = json.loads((tmp_path / ENGLISH / name).read_text(encoding="utf-8"))
        assert written == json.loads((LOCALES / ENGLISH / name).read_text(encoding="utf-8")), name
    assert locales.read(ENGLISH) == english


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_what_is_translated_belongs_to_a_node(english: Words, language: str) -> None:
    there = locales.read(language)
    assert locales.stale(english, there) == []
    assert {there[key] for key in locales.unchanged(english, there)} <= NAMES


@pytest.mark.parametrize("language", COMPLETE)
def test_everything_is_translated(english: Words, language: str) -> None:
    assert locales.missing(english, locales.read(language)) == []


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_one_word_of_a_node_is_one_word_everywhere(english: Words, language: str) -> None:
    """So that a sentence can be found by its English one."""
    there = locales.read(language)
    by_sentence: dict[str, set[str]] = {}
    for key, text in there.items():
        by_sentence.setdefault(english[key], set()).add(text)
    assert {sentence: texts for sentence, texts in by_sentence.items() if len(texts) > 1} == {}


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_what_a_sentence_quotes_stays(english: Words, language: str) -> None:
    """Examples of what to type, and what the host fills in."""
    quoted = re.compile(r"\{[^{}]*\}|%\w+%|\"[^\"{}]*@[^\"{}]*\"")
    for key, text in locales.read(language).items():
        for example in quoted.findall(english[key]):
            assert example in text, (key, example)


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_the_words_of_scripts_are_translated(language: str) -> None:
    ours, theirs = script_words(ENGLISH), script_words(language)
    assert theirs.keys() == ours.keys()
    for name, sentence in theirs.items():
        assert sentence and fields(sentence) == fields(ours[name]), name
        assert sentence != ours[name] or name in WORDS_AS_IN_ENGLISH or not says_something(sentence), name


def test_the_words_of_scripts_are_used() -> None:
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in WEB.rglob("*.js"))
    for name in script_words(ENGLISH):
        # Some are made of a stem and a choice: words[`blockWeightsPreset_${name}`].
        stem = name.split("_")[0]
        assert re.search(rf"\b({name}\b|{stem}_?\$\{{)", scripts), name


@pytest.mark.parametrize("language", (ENGLISH, *locales.LANGUAGES))
def test_nothing_in_the_files_is_syntax(language: str) -> None:
    tree = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for key, text in locales.leaves({**tree, CATEGORIES: locales.main_words(language)[CATEGORIES]}):
        if key[-1] != "tooltip":
            assert not set(re.sub(r"\{'.'\}", "", text)) & set(SYNTAX), key


@pytest.mark.parametrize(
    ("key", "text", "written"),
    [
        (("Node", "description"), "over 50 % of {all} a|b @c", "over 50 {'%'} of {'{'}all{'}'} a{'|'}b {'@'}c"),
        (("Node", "inputs", "x", "name"), "a|b", "a{'|'}b"),
        (("Node", "inputs", "x", "tooltip"), '{"output": 0.5} | 0.2@0 %', '{"output": 0.5} | 0.2@0 %'),
    ],
)
def test_the_page_would_show_what_is_said(key: Key, text: str, written: str) -> None:
    assert locales.stored(key, text) == written
    assert locales.shown(key, written) == text


def test_inputs_that_come_and_go_have_the_page_s_keys(english: Words) -> None:
    one = ("ControlComposerPreprocess", "inputs")
    assert english[(*one, "preprocessor_low", "name")] == "low"
    # Canny's and others' differ; the key says nothing of the choice.
    assert (*one, "preprocessor_low", "tooltip") not in english
    assert english[(*one, "preprocessor_halvings", "tooltip")].startswith("How often")
    assert english["ControlComposerCompose", "inputs", "layers_layer0", "tooltip"] == "From Control Layer."


def test_the_names_in_stand_ins_for_other_packs_stay(english: Words) -> None:
    old = ("ControlComposerAuxHEDPreprocessor",)
    assert {key[1:] for key in english if key[:1] == old} == {
        ("description",),
        ("inputs", "image", "tooltip"),
        ("inputs", "safe", "tooltip"),
        ("inputs", "resolution", "tooltip"),
        ("outputs", "0", "tooltip"),
    }


def test_a_changed_sentence_is_translated_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(description: str) -> Words:
        plain = {"inputs": [], "outputs": [], "is_deprecated": False, "category": "menu"}
        schema = SimpleNamespace(node_id="Node", display_name="A node", description=description, **plain)
        return locales.words_of([SimpleNamespace(define_schema=lambda: schema)])

    korean = {"A node": "노드", "It does {this}.": "{이것}을 합니다.", "menu": "메뉴", "Never said.": "없음"}
    locales.write(ENGLISH, said("It does {this}."), tmp_path)
    before = locales.read(ENGLISH, tmp_path)
    locales.write("ko", locales.translated(before, korean), tmp_path)
    assert locales.read("ko", tmp_path)["Node", "description"] == korean["It does {this}."]

    english = said("It does that.")
    kept = locales.translated(english, locales.dictionary(before, locales.read("ko", tmp_path)))
    assert locales.missing(english, kept) == [("Node", "description")]
    assert kept["Node", "display_name"] == "노드"
    locales.tell("ko", english, kept, korean)
    told = capsys.readouterr().out
    assert "1 missing" in told and "nothing says: Never said." in told and "nothing says: It does {this}." in told
