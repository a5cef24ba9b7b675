"""Saved controls in our loader and in diffusers."""

import pytest
import torch

pytest.importorskip("comfy")
from safetensors import safe_open

from control_composer.checkpoints.load import load_checkpoint
from control_composer.tests.narrow import fill
from control_composer.training.copy import encoder_of, heads_of, trainable_copy
from control_composer.training.errors import TrainingError
from control_composer.training.export import export

from .bases import SMALL, inputs, make_unet

POOLED = 16
CHANGES = {
    "sd1": SMALL,
    "sd2": SMALL,
    # diffusers embeds six sizes in 256 numbers each.
    "sdxl": SMALL
    | {
        "channel_mult": [1, 2],
        "transformer_depth": [0, 2],
        "transformer_depth_middle": 2,
        "adm_in_channels": POOLED + 6 * 256,
    },
}


def saved(kind, path, **options):
    unet = make_unet(kind, **CHANGES[kind])
    control = trainable_copy(unet)
    fill(control, seed=7)
    options = {"dtype": torch.float32} | options
    return unet, control, export(path, control.state_dict(), encoder_of(unet, 3), heads_of(unet), **options)


def assert_close(control, other, made):
    with torch.no_grad():
        one, two = control(**made), other(**{name: value.to(other.dtype) for name, value in made.items()})
    for place in ("output", "middle"):
        torch.testing.assert_close(one[place], [value.float() for value in two[place]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["cldm", "diffusers"])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_our_loader_reads_it(kind, layout, tmp_path):
    unet, control, file = saved(kind, tmp_path / "own.safetensors", layout=layout, about={"steps": "10"})
    assert_close(control, load_checkpoint(file).built.module, inputs(unet))
    with safe_open(file, "pt") as held:
        assert held.metadata()["steps"] == "10"
    assert not list(file.parent.glob("*.unfinished"))
    (tmp_path / "ordinary").touch()
    assert file.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_and_computes_the_same(kind, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    unet, control, _ = saved(kind, tmp_path, layout="diffusers")
    theirs, told = diffusers.ControlNetModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    made = inputs(unet)
    added = None
    if kind == "sdxl":
        # There, the vector is made inside, of pooled text and embedded sizes; the same one is y here.
        pooled, sizes = made["y"][:, :POOLED], torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(2, 1)
        made["y"] = torch.cat([pooled, theirs.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
        added = {"text_embeds": pooled, "time_ids": sizes}
    with torch.no_grad():
        own = control(**made)
        down, middle = theirs(
            made["x"], made["timesteps"], made["context"], made["hint"], added_cond_kwargs=added, return_dict=False
        )
    torch.testing.assert_close(own["output"], list(down), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own["middle"][0], middle, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_saved_is_told(tmp_path):
    unet = make_unet("sd1")
    lite = trainable_copy(unet, form="lite").state_dict()
    with pytest.raises(TrainingError, match="is no copy of an encoder, but the weights of one were expected; train"):
        export(tmp_path / "lite.safetensors", lite, encoder_of(unet, 3), heads_of(unet))
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"The trained control could not be written to .*; free some room"):
        saved("sd1", tmp_path / "file" / "own.safetensors")
