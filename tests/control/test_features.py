"""Norms of features and residuals in the host's own UNet, against hooks on its modules that know nothing of ours."""

import pytest

pytest.importorskip("comfy")

import torch
from comfy.controlnet import ControlBase

from control_composer.control.compatibility import unet_layout
from control_composer.control.features import record_norm, record_norms, watch_features
from control_composer.control.record import Record
from control_composer.residuals.blocks import Block
from control_composer.residuals.residuals import Residuals
from control_composer.tests import narrow

SIZE = (2, 8, 12)
CONNECTIONS = {"sd1": 12, "sdxl": 9}


class Inspected(ControlBase):
    """Fixed residuals by list, and the record of what they meet."""

    def __init__(self, make, watch=True):
        super().__init__()
        self.make, self.watch, self.record = make, watch, Record()

    def pre_run(self, model, percent_to_timestep_function):
        self.layout = unet_layout(model)
        self.record = Record(inspect=True)

    def get_control(self, x, t, cond, batched_number, transformer_options):
        residuals = self.make(self.layout, x)
        if self.watch:
            blocks = residuals.blocks(self.layout, *x.shape[2:])
            call = self.record.next_call()
            record_norms(self.record, call, residuals, blocks)
            watch_features(transformer_options, self.record, call, blocks, self.layout)
        return residuals.to_host()

    def copy(self):
        return self

    def cleanup(self):
        pass

    def get_models(self):
        return []


def noise(blocks, rows, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(rows, b.channels, b.height, b.width, generator=generator) for b in blocks]


def cldm(layout, x):
    """What a ControlNet returns: one residual for each skip and the middle."""
    *encoder, middle = noise(layout.blocks(*x.shape[2:]), x.shape[0], 1, 0.3)
    return Residuals(output=tuple(encoder), middle=(middle,))


def everywhere(layout, x):
    """Residuals in all three lists, of which "input" is short and has gaps, as those of a T2I-Adapter."""
    both = cldm(layout, x)
    blocks = layout.blocks(*x.shape[2:])[:-1]
    given = noise(blocks, 1, 2, 0.5)  # one row for all latents
    given[0] = None
    given = given[:-2]  # encoder blocks 1 … n-3
    return Residuals(output=both.output, middle=both.middle, input=tuple(reversed(given)))


def sampled(kind, control, model, **changes):
    positive, negative = (
        [[entry[0], {**entry[1], "control": control, "control_apply_to_uncond": False}]]
        for conditioning in (narrow.conditioning(kind, 1), narrow.conditioning(kind, 2))
        for entry in conditioning
    )
    return narrow.sample(model, positive, negative, SIZE, steps=2, **changes)


def hooked(model, calls):
    """Hooks on the last module of each encoder block and of the middle, noting the norms of each row of what comes out."""
    unet = model.model.diffusion_model
    handles = []
    for name, block in (*enumerate(unet.input_blocks), ("middle", unet.middle_block)):

        def note(module, inputs, output, name=name):
            calls.setdefault(name, []).append(output.double().square().sum(dim=(1, 2, 3)).sqrt())

        handles.append(block[-1].register_forward_hook(note))
    return handles


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_features_of_the_skips_and_the_middle_are_those_of_the_modules(kind):
    model, control, calls = narrow.make_model(kind), Inspected(cldm), {}
    model.set_model_input_block_patch_after_skip(lambda h, options: 1.5 * h)  # after the skip was put away
    handles = hooked(model, calls)
    sampled(kind, control, model)
    for handle in handles:
        handle.remove()

    record = control.record
    assert record.calls == len(calls["middle"]) >= 2
    assert len(record.feature_norms) == record.calls * (CONNECTIONS[kind] + 1)
    for call in range(record.calls):
        for block in range(CONNECTIONS[kind]):
            torch.testing.assert_close(
                record.feature_norms[call, f"output {block}"].double(), calls[block][call], rtol=1e-5, atol=0
            )
        torch.testing.assert_close(
            record.feature_norms[call, "middle"].double(), calls["middle"][call], rtol=1e-5, atol=0
        )


def test_input_residuals_meet_the_output_of_their_block_and_the_skip_that_already_has_them():
    model, control, calls = narrow.make_model("sd1"), Inspected(everywhere), {}
    handles = hooked(model, calls)
    sampled("sd1", control, model)
    for handle in handles:
        handle.remove()

    names = {name for _, name in control.record.feature_norms}
    length = 10
    assert {name for name in names if name.startswith("input")} == {f"input {index}" for index in range(length)}
    for call in range(control.record.calls):
        for block in range(length):
            found = control.record.feature_norms[call, f"input {length - 1 - block}"].double()
            torch.testing.assert_close(found, calls[block][call], rtol=1e-5, atol=0)
        given = control.record.feature_norms[call, "output 1"].double() - calls[1][call]
        assert given.abs().min() > 1e-3  # the skip holds the input residual when the output residual is added


def test_residual_norms_are_those_of_each_row():
    control = Inspected(cldm)
    model = narrow.make_model("sd1")
    sampled("sd1", control, model)
    rows = control.record.residual_norms[0, None, "middle"].shape[0]
    expected = cldm(unet_layout(model.model), torch.zeros(rows, 4, *SIZE[1:]))
    for (_, index, residual), name in zip(
        expected.items(), [*(f"output {n}" for n in range(12)), "middle"], strict=True
    ):
        found = control.record.residual_norms[0, None, name]
        torch.testing.assert_close(found, residual.square().sum(dim=(1, 2, 3)).sqrt(), rtol=1e-5, atol=0)
        assert index == int(name.split()[-1] if " " in name else 0)


@pytest.mark.parametrize("make", [cldm, everywhere])
def test_watching_changes_neither_the_result_nor_the_options_of_the_model(make):
    model = narrow.make_model("sd1")
    seen = []

    def other(h, options):
        seen.append(options["block"])
        return h * 1.01

    model.set_model_input_block_patch_after_skip(other)
    model.set_model_patch(other, "input_block_patch")
    before = str(model.model_options)
    plain = sampled("sd1", Inspected(make, watch=False), model)
    count = len(seen)
    watched = sampled("sd1", Inspected(make), model)
    assert torch.equal(plain, watched)
    assert len(seen) == 2 * count > 0
    assert str(model.model_options) == before


def test_half_precision_norms_do_not_overflow():
    feature = torch.full((1, 4, 64, 64), 3000.0, dtype=torch.float16)
    record = Record()
    record_norms(record, 0, Residuals(middle=(feature,)), [Block("middle", 0, 3, 4, 64, 64)])
    assert record.residual_norms[0, None, "middle"].item() == pytest.approx(3000.0 * 128)


def test_norms_of_some_rows_take_their_places_in_the_batch():
    record, block = Record(), Block("middle", 0, 3, 1, 1, 1)
    record_norm(record, 0, block, torch.tensor([3.0, -4.0]).view(2, 1, 1, 1), 2, (1, 3), 5)
    assert record.residual_norms[0, 2, "middle"].tolist() == [0, 3, 0, 4, 0]
    record_norm(record, 0, block, torch.tensor([7.0]).view(1, 1, 1, 1), 2, (0, 4), 5)  # one row for all
    assert record.residual_norms[0, 2, "middle"].tolist() == [7, 3, 0, 4, 7]
    record_norm(record, 0, block, torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), 2, (0, 1), 2)
    assert record.residual_norms[0, 2, "middle"].tolist() == [1, 2]


def test_a_model_that_is_no_unet_is_not_watched():
    options = {"patches": {}}
    watch_features(options, Record(), 0, [Block("middle", 0, 3, 4, 64, 64)], None)
    assert options == {"patches": {}}
