"""Draws the pictures of docs/composing.md: `python host.py python -m control_composer.demo.compositions --output docs/composing`.

Everything in them is drawn anew by the shipped demo world through the host's sampler, figures and the report in the text included.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from pathlib import Path

from .panels import as_image, save_page
from .train import use_cpu_without_cuda

log = logging.getLogger("demo.compositions")

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCALES = {"windows": 1.0, "masks": 1.0, "weights": 1.0}
"""Enlargement of each sheet's pictures; 1.25 for those not named."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the pictures of docs/composing.md.")
    parser.add_argument("--output", type=Path, default=DOCS / "composing")
    parser.add_argument("--page", type=Path, default=DOCS / "composing.md", help="where the report is written in")
    parser.add_argument("--only", nargs="*", help="names of sheets; all without it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    use_cpu_without_cuda()
    from . import experiments as over
    from . import experiments_in_space as space
    from .studio import Studio

    sheets = {
        "batches": over.batches,
        "areas": space.areas,
        "masks": space.masks,
        "windows": over.windows,
        "schedules": over.schedules,
        "weights": over.weights,
        "sizing": space.sizing,
    }

    studio = Studio.open()
    kept = options.output / "figures.json"
    figures = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for name, experiment in sheets.items():
        if not options.only or name in options.only:
            found = experiment(studio)
            save_page(options.output / f"{name}.jpg", found.rows, SCALES.get(name, 1.25))
            figures[name] = {key: round(value, 3) for key, value in found.figures.items()}
            log.info("%s: %s", name, figures[name])
    if not options.only or "inspection" in options.only:
        seen = over.inspection(studio)
        save_page(options.output / "overlay.jpg", seen.composition.rows, 1.25)
        as_image(seen.heatmap, 0.75).save(options.output / "heatmap.jpg", quality=82)
        figures["inspection"] = {key: round(value, 3) for key, value in seen.composition.figures.items()}
        log.info("%s", seen.composition.text)
        if options.page.is_file():
            write_report(options.page, seen.composition.text)
    kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def write_report(page: Path, report: str) -> None:
    """Puts the report between its two marks."""
    begins, ends = "<!-- report begins -->", "<!-- report ends -->"
    text = page.read_text(encoding="utf-8")
    block = f"{begins}\n```\n{report}\n```\n{ends}"
    written, count = re.subn(f"{begins}.*?{ends}", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(
            f"{page.name} has {count} places for the report, but one was expected; put {begins} and {ends} where it belongs."
        )
    page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
