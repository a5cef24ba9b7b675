"""docs/annotators.md, from the tables: `python host.py python -m control_composer.preprocessors.annotators.page` writes it."""

from __future__ import annotations

from pathlib import Path

from . import ANNOTATORS, Annotator, File

PAGE = Path(__file__).parents[2] / "docs" / "annotators.md"

HEAD = """# Files of annotators

Made from `preprocessors/annotators/` by `python host.py python -m control_composer.preprocessors.annotators.page`; a test compares them.

Nothing is downloaded by itself. Either queue the node *Download Annotators*, or

```
python host.py annotators                          what is there and what is missing
python host.py annotators download HED TEED        these; --all: all that are missing
```

`--comfyui PATH` takes the folders of that installation, `--folder PATH` any other. A download that was stopped goes on where it was; the
file gets its name only when it is whole. Where the size and the SHA-256 sum are known here, a file that has others is not kept; where
they are not, the sum that was found is shown. `HF_ENDPOINT` names a mirror of huggingface.co, `HTTPS_PROXY` a proxy; with
`HF_HUB_OFFLINE=1` or `--offline` the network is never asked. `.pth` files are read as weights only: code in them is refused, never run.

Files go into `models/annotators`, folders of several files into `models/annotators/<owner>/<name>`. Other folders, also of other
programs, are read where `extra_model_paths.yaml` names them, with all folders in them: for stable-diffusion-webui's

```
annotators_of_webui:
    annotators: /path/to/sd-webui-controlnet/annotator/downloads
```

comfyui_controlnet_aux's downloads are found by themselves, also where its `config.yaml` or `AUX_ANNOTATOR_CKPTS_PATH` put them, and so
are files in the hub's own cache. A single file converted to `.safetensors` under the same name is taken before the published one.

Licences are those that the files' pages or the code's repositories show; "not known here" means that none was found. Nobody here is a
lawyer.
"""

COLUMNS = ("annotator", "files", "bytes", "SHA-256", "licence", "commercial use")


def page() -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(row(annotator))} |" for annotator in ANNOTATORS]
    return HEAD + "\n" + "\n".join(lines) + "\n"


def row(annotator: Annotator) -> tuple[str, ...]:
    return (
        annotator.id,
        "<br>".join(f"[{file.name}]({file.address})" for file in annotator.files),
        "<br>".join(f"{file.bytes:,}" if file.bytes else "?" for file in annotator.files),
        "<br>".join(file_sum(file) for file in annotator.files),
        annotator.licence,
        annotator.commercial,
    )


def file_sum(file: File) -> str:
    return f"`{file.sha256}`" if file.sha256 else "?"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
