"""Size Hint and Resize Hint in the host."""

from typing import Any

import pytest
import torch

pytest.importorskip("comfy")

import comfy.model_management
import comfy.nested_tensor
import comfy.utils

from control_composer.nodes.hint_size import ControlComposerHintSize as HintSize
from control_composer.nodes.hint_size import ControlComposerResizeHint as ResizeHint
from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.careful_resize import placed
from control_composer.preprocessors.sizing import Size


def picture(height: int, width: int, frames: int = 1) -> torch.Tensor:
    return torch.rand((frames, height, width, 3), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("mode", "resolution"), [("crop", 1024), ("fit", 576), ("stretch", 1024)])
def test_size_hint(mode: str, resolution: int) -> None:
    image = picture(48, 64, 3)
    assert HintSize.execute(image, mode, width=768, height=1024).result == (resolution, 768, 1024)
    latent = {"samples": torch.zeros(1, 4, 128, 96)}
    assert HintSize.execute(image, mode, width=1, height=1, latent=latent).result == (resolution, 768, 1024)


def test_latents_of_other_kinds() -> None:
    def sizes(latent: dict[str, Any]) -> Any:
        return HintSize.execute(picture(8, 8), "crop", 512, 512, latent=latent).result[1:]

    assert sizes({"samples": torch.zeros(1, 64, 20, 33), "downscale_ratio_spacial": 16}) == (528, 320)
    video = torch.zeros(1, 16, 5, 20, 33)
    assert sizes({"samples": video}) == (264, 160)
    sound = comfy.nested_tensor.NestedTensor((video, torch.zeros(1, 8, 40)))
    assert sizes({"samples": sound, "downscale_ratio_spacial": 32}) == (1056, 640)
    with pytest.raises(PreprocessorError) as refused:
        sizes({"samples": torch.zeros(1, 64, 200)})
    assert str(refused.value) == (
        "latent: found a tensor of shape (1, 64, 200), but a latent of pictures or of a video with a height and width was expected; connect one, "
        "or set width and height."
    )


def test_resize_hint_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: told.append((value, total)))
    hint = picture(40, 30, 4)
    (found,) = ResizeHint.execute(hint, "fit", width=33, height=57).result
    assert torch.equal(found, placed(hint, Size(57, 33), "fit"))
    assert told[0] == (0, 4) and told[-1] == (4, 4)
    (same,) = ResizeHint.execute(hint, "fit", 1, 1, latent={"samples": torch.zeros(1, 4, 5, 3)}).result
    assert torch.equal(same, placed(hint, Size(40, 24), "fit"))


def test_an_interruption_ends_resize_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def interrupt_after_the_first(value: int, *_: Any, **__: Any) -> None:
        seen.append(value)
        comfy.model_management.interrupt_current_processing(len(seen) == 1)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", interrupt_after_the_first)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ResizeHint.execute(picture(8, 8, 5), "crop", width=16, height=16)
    assert seen == [0]


def test_pictures_are_what_the_host_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.model_management, "intermediate_dtype", lambda: torch.float16)
    assert ResizeHint.execute(picture(8, 8), "crop", width=16, height=16).result[0].dtype == torch.float16
    with pytest.raises(PreprocessorError, match="hint: found a"):
        ResizeHint.execute(torch.zeros(8, 8, 3), "crop", width=16, height=16)
    with pytest.raises(PreprocessorError, match="image: found an empty batch"):
        HintSize.execute(torch.zeros(1, 0, 8, 3), "crop", width=16, height=16)
