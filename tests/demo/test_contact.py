"""Contact sheets and thumbnails, by the colours at known places."""

from PIL import Image

from control_composer.demo.contact import contact_sheet, thumbnail


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


ONE = [
    ("Hint", [plain("red")]),
    ("Without control", [plain("gray")] * 4),
    ("With control", [plain("lime"), plain("blue"), plain("yellow"), plain("cyan")]),
]
TWO = [
    ("Hint: edges", [plain("red")]),
    ("Hint: colours", [plain("magenta")]),
    ("Without control", [plain("gray")] * 4),
    ("With both controls", [plain("lime"), plain("blue")]),
]
COLOURS = {
    (255, 0, 0): "red", (0, 255, 0): "lime", (0, 0, 255): "blue", (255, 255, 0): "yellow",
    (0, 255, 255): "cyan", (255, 0, 255): "magenta", (128, 128, 128): "gray",
}  # fmt: skip


def corners(picture: Image.Image) -> list[str]:
    right, bottom = picture.width - 10, picture.height - 10
    return [COLOURS[picture.getpixel(place)] for place in ((10, 10), (right, 10), (10, bottom), (right, bottom))]


def test_a_thumbnail_shows_the_hints_and_what_they_led_to() -> None:
    assert corners(thumbnail(ONE)) == ["red", "lime", "blue", "yellow"]
    assert corners(thumbnail(TWO)) == ["red", "magenta", "lime", "blue"]


def test_a_sheet_holds_every_picture_at_twice_its_size() -> None:
    sheet = contact_sheet({"one": ONE, "two": TWO})
    areas = {COLOURS[colour]: count for count, colour in sheet.getcolors(1 << 24) if colour in COLOURS}
    one = 80 * 60
    expected = {"red": 2 * one, "magenta": one, "gray": 8 * one, "lime": 2 * one, "blue": 2 * one}
    expected |= {"yellow": one, "cyan": one}
    # Text is grey where it is antialiased, so that count may be a little higher.
    assert 0 <= areas.pop("gray") - expected.pop("gray") < 50
    assert areas == expected


def test_rows_of_different_widths_stand_under_each_other() -> None:
    alone = [contact_sheet({"one": ONE}), contact_sheet({"two": TWO})]
    both = contact_sheet({"one": ONE, "two": TWO})
    assert both.width == max(sheet.width for sheet in alone)
    assert both.height == sum(sheet.height for sheet in alone)
