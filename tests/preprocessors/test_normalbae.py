"""NormalBAE beside controlnet-aux's, on random weights in the published names and widths."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.network import Network
from control_composer.preprocessors.networks.normalbae import UNUSED, NormalBAE, build_normalbae, published, widths_of
from control_composer.preprocessors.networks.weights import NOWHERE, shapes
from control_composer.preprocessors.normalbae import normalbae
from control_composer.tests.preprocessors.pictures import as_image, noise
from control_composer.tests.preprocessors.weights_normals import (
    PUBLISHED,
    filled_in,
    narrow_normalbae,
    normalbae_shapes,
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """controlnet-aux's network as published, without numbers. Its encoder is made by its own copy of geffnet."""
    pytest.importorskip("controlnet_aux")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from controlnet_aux.normalbae.nets.NNET import NNET

        settings = SimpleNamespace(mode="client", architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
        with torch.device("meta"):
            return NNET(settings).eval()


def network(weights: dict[str, Tensor]) -> dict[str, Network]:
    made = build_normalbae({f"module.{name}": tensor for name, tensor in weights.items()})
    return {"NormalBAE": Network(made, torch.device("cpu"), torch.float32)}


def test_published_names(theirs: Any) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()} == PUBLISHED
    widths = widths_of({name: torch.empty(shape, device="meta") for name, shape in PUBLISHED.items()})
    ours = published(shapes(NormalBAE(widths, device=NOWHERE)))
    assert ours == {name: shape for name, shape in PUBLISHED.items() if not name.startswith(UNUSED)}


def test_same_numbers(theirs: Any) -> None:
    """As deep as published, the encoder and the coarsest features narrower, as what they are made by allows."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        from controlnet_aux.normalbae.nets.submodules.efficientnet_repo.geffnet.gen_efficientnet import (
            _gen_efficientnet,
        )
        from controlnet_aux.normalbae.nets.submodules.submodules import UpSampleBN

        narrow = copy.deepcopy(theirs)
        encoder = _gen_efficientnet("b5", channel_multiplier=0.4, depth_multiplier=2.2, bn_eps=1e-3, pad_type="same")
        encoder.global_pool = encoder.classifier = nn.Identity()
        narrow.encoder.original_model = encoder
        widths = [blocks[-1].conv_pwl.out_channels for blocks in encoder.blocks[1:]]
        widths = (encoder.blocks[0][-1].conv_pw.out_channels, *widths)
        head = encoder.conv_head.out_channels
        narrow.decoder.conv2 = nn.Conv2d(head, head, 1)
        narrow.decoder.up1 = UpSampleBN(head + widths[4], 32)
        narrow.decoder.up2 = UpSampleBN(32 + widths[2], 512)
        narrow.decoder.up3 = UpSampleBN(512 + widths[1], 256)
        narrow.decoder.up4 = UpSampleBN(256 + widths[0], 128)
    made_of = {name: tuple(tensor.shape) for name, tensor in narrow.state_dict().items()}
    assert made_of == normalbae_shapes(encoder.conv_stem.out_channels, widths, head, (32, 512, 256, 128), 128)
    weights = filled_in(made_of)
    narrow.eval().load_state_dict(weights, assign=True)
    picture = as_image(noise(64, 128))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        normals = narrow(((picture - mean) / deviation).movedim(-1, 1))[0][-1][:, :3]
    expected = ((normals + 1) * 0.5).clip(0, 1).movedim(1, -1)
    made = normalbae(picture, networks=network(weights))
    assert expected.std((1, 2)).min() > 0.02
    assert float((made - expected).abs().max()) < 1e-4


def test_every_size() -> None:
    picture = as_image(noise(70, 93))
    made = normalbae(picture, networks=network(narrow_normalbae()))
    assert made.shape == (1, 70, 93, 3)
    assert torch.allclose((made * 2 - 1).norm(dim=-1), torch.ones(1, 70, 93), atol=1e-4)


def test_other_files_are_refused() -> None:
    weights = narrow_normalbae()
    del weights["encoder.original_model.blocks.3.2.bn2.running_var"]
    with pytest.raises(PreprocessorError) as refused:
        build_normalbae(weights, file="scannet.pt")
    assert str(refused.value) == (
        "'scannet.pt': found no tensor 'encoder.original_model.blocks.3.2.bn2.running_var', but the 931 tensors of NormalBAE "
        "were expected; put the published file there, under its own name."
    )
    weights = narrow_normalbae() | {"decoder.out_conv_res2.4.weight": torch.zeros(16, 16, 1, 1)}
    with pytest.raises(
        PreprocessorError, match=r"'decoder\.out_conv_res2\.4\.weight' of shape \(16, 16, 1, 1\) in place"
    ):
        build_normalbae(weights, file="scannet.pt")
