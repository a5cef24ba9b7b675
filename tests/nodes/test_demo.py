"""Scenes of the demo world as lists."""

import pytest
import torch

pytest.importorskip("comfy")


def test_many_scenes_come_as_lists_with_their_captions():
    from control_composer.demo.scenes import render, sample_scenes
    from control_composer.nodes.demo import ControlComposerDemoScenes

    images, captions = ControlComposerDemoScenes.execute(5, 40).args
    scenes = sample_scenes(40, 5)
    assert captions == scenes.captions() and len(set(captions)) > 30
    assert [tuple(image.shape) for image in images] == [(1, 128, 128, 3)] * 40
    assert torch.equal(torch.cat(images), render(scenes))
