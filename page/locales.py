"""The words of our nodes in the page's languages, `locales/<language>/nodeDefs.json`, written out of the nodes' schemas.

    python host.py python -m control_composer.page.locales    after changing a node's words: the English file anew
    python page/locales.py --strings FILE                     what there is to translate
    python page/locales.py --take ko FILE                     {English: Korean} into locales/ko

The English file is the schemas as they are. In the others a sentence whose English has changed is left out until it is translated again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parents[1] / "locales"
ENGLISH = "en"
LANGUAGES = ("ko", "zh", "ja")

Key = tuple[str, ...]
Words = dict[Key, str]
"""By node, and where in it: ("ControlComposerCanny", "inputs", "low", "tooltip"). Texts are as people read them."""

CATEGORIES = "nodeCategories"
"""Parts of the menu's path. The page looks them up in main.json, among those of all packs, part by part."""

SYNTAX = re.compile(r"[@{}|%]")
"""What the page's vue-i18n reads as syntax where it compiles a message."""
AS_WRITTEN = ("tooltip",)
"""What the page shows without compiling it."""


def words_of(nodes: Iterable[Any]) -> Words:
    """All that the page shows of these nodes, classes of io.ComfyNode; the names in deprecated ones are another pack's and stay."""
    found: Words = {}
    for node in nodes:
        schema = node.define_schema()
        own, old = schema.node_id, schema.is_deprecated
        found[own, "display_name"] = "" if old else schema.display_name
        found[own, "description"] = schema.description
        for item in schema.inputs:
            for key, text in input_words(item):
                place = (own, "inputs", *key)
                found[place] = "" if old and key[-1] == "name" else text
        for index, item in enumerate(schema.outputs):
            found[own, "outputs", str(index), "name"] = "" if old else item.display_name or item.id
            found[own, "outputs", str(index), "tooltip"] = item.tooltip
        for part in schema.category.split("/"):
            found[CATEGORIES, part] = part
    return {key: text for key, text in found.items() if text}


def input_words(item: Any) -> Iterator[tuple[Key, str]]:
    """Name and tooltip of an input and of those that come and go with it, under the keys by which the page asks: dots become underscores."""
    yield (plain(item.id), "name"), item.display_name or item.id
    yield (plain(item.id), "tooltip"), item.tooltip
    template: Any = getattr(item, "template", None)
    if hasattr(template, "prefix"):  # a growing input; the page names what grows itself
        for number in range(template.max):
            yield (plain(f"{item.id}.{template.prefix}{number}"), "tooltip"), template.input.tooltip
    tooltips: dict[str, set[str]] = {}
    for option in getattr(item, "options", None) or ():
        for nested in getattr(option, "inputs", ()):
            tooltips.setdefault(nested.id, set()).add(nested.tooltip)
    for name, different in tooltips.items():
        yield (plain(f"{item.id}.{name}"), "name"), name
        if len(different) == 1:  # the key says nothing of the choice; where choices differ, the page shows the schema's
            yield (plain(f"{item.id}.{name}"), "tooltip"), different.pop()


def plain(identifier: str) -> str:
    return identifier.replace(".", "_")


def stored(key: Key, text: str) -> str:
    """The text as it has to stand in the file, so that the page shows it as it is."""
    return text if key[-1] in AS_WRITTEN else SYNTAX.sub(lambda found: f"{{'{found[0]}'}}", text)


def shown(key: Key, text: str) -> str:
    """The reverse of `stored`."""
    return text if key[-1] in AS_WRITTEN else re.sub(r"\{'(.)'\}", r"\1", text)


def read(language: str, folder: Path = LOCALES) -> Words:
    """What the language's files say."""
    path = folder / language / "nodeDefs.json"
    nodes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    menu = main_words(language, folder).get(CATEGORIES, {})
    return {key: shown(key, text) for key, text in leaves({**nodes, CATEGORIES: menu})}


def leaves(tree: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, str]]:
    for name, below in tree.items():
        if isinstance(below, Mapping):
            yield from leaves(below, (*above, name))
        else:
            yield (*above, name), below


def write(language: str, words: Words, folder: Path = LOCALES) -> None:
    tree: dict[str, Any] = {}
    for key in sorted(words, key=in_order):
        place = tree
        for name in key[:-1]:
            place = place.setdefault(name, {})
        place[key[-1]] = stored(key, words[key])
    menu = tree.pop(CATEGORIES, {})
    (folder / language).mkdir(parents=True, exist_ok=True)
    save(folder / language / "nodeDefs.json", tree)
    save(folder / language / "main.json", {**main_words(language, folder), CATEGORIES: menu})


def in_order(key: Key) -> tuple[Any, ...]:
    """By node; numbers as numbers."""
    return tuple((int(part), part) if part.isdigit() else (-1, part) for part in key)


def main_words(language: str, folder: Path = LOCALES) -> dict[str, Any]:
    path = folder / language / "main.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def dictionary(english: Words, translated: Words) -> dict[str, str]:
    """{English: translated} out of two files of the same time."""
    return {english[key]: text for key, text in translated.items() if key in english}


def translated(english: Words, by_sentence: Mapping[str, str]) -> Words:
    return {key: by_sentence[text] for key, text in english.items() if by_sentence.get(text)}


def missing(english: Words, other: Words) -> list[Key]:
    return [key for key in english if key not in other]


def stale(english: Words, other: Words) -> list[Key]:
    return [key for key in other if key not in english]


def unchanged(english: Words, other: Words) -> list[Key]:
    return [key for key, text in other.items() if english.get(key) == text]


def sentences(english: Words) -> dict[str, list[str]]:
    """What there is to translate, each once, and the nodes that say it."""
    found: dict[str, set[str]] = {}
    for key, text in english.items():
        found.setdefault(text, set()).add(key[0])
    return {text: sorted(found[text]) for text in sorted(found)}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="locales", description="Writes the words of the nodes for the page's languages."
    )
    parser.add_argument(
        "--strings", type=Path, metavar="FILE", help="write what there is to translate, and where it is"
    )
    parser.add_argument(
        "--take", nargs=2, metavar=("LANGUAGE", "FILE"), help="put {English: translated} into a language"
    )
    options = parser.parse_args(arguments)
    before = english = read(ENGLISH)
    if not (options.strings or options.take):
        from .. import SECTIONS  # the pack, with the host's modules

        english = words_of(node for section in SECTIONS for node in section.NODES)
        write(ENGLISH, english)
    if options.strings:
        save(options.strings, sentences(english))
    language, taken = options.take or ("", None)
    given = json.loads(Path(taken).read_text(encoding="utf-8")) if taken else {}
    for one in (language,) if taken else () if options.strings else LANGUAGES:
        words = translated(english, dictionary(before, read(one)) | given)
        if words:
            write(one, words)
        tell(one, english, words, given)


def tell(language: str, english: Words, words: Words, given: Mapping[str, str]) -> None:
    """What a translator has to do yet."""
    lacking, same = missing(english, words), unchanged(english, words)
    strange = sorted(given.keys() - set(english.values()))
    sys.stdout.write(
        f"{language}: {len(lacking)} missing, {len(same)} as in English, {len(strange)} that nothing says\n"
    )
    if words:
        sys.stdout.writelines(f"  missing: {'.'.join(key)}: {english[key]}\n" for key in lacking)
    sys.stdout.writelines(f"  as in English: {sentence}\n" for sentence in sorted({words[key] for key in same}))
    sys.stdout.writelines(f"  nothing says: {sentence}\n" for sentence in strange)


if __name__ == "__main__":
    main(sys.argv[1:])
