"""DDIM against a network that knows the answer, and against the demo's sampler."""

import pytest
import torch

pytest.importorskip("comfy")
from control_composer.demo.diffusion import alphas_cumprod
from control_composer.demo.diffusion import sample as demo_sample
from control_composer.training.batch import EmptyPrompt
from control_composer.training.objective import Schedule, noised, target
from control_composer.training.sampling import sample

ALPHAS = alphas_cumprod()
HINT = torch.zeros(2, 3, 16, 16)
EMPTY = EmptyPrompt(torch.zeros(1, 3, 8), torch.zeros(1, 4))


class Knows:
    """Says, for any x, what one latent would make of it."""

    dtype = torch.float32

    def __init__(self, latent, prediction):
        self.latent, self.prediction = latent, prediction
        self.seen = []

    def __call__(self, x, times, context, y, control, transformer_options):
        self.seen.append((times.tolist(), context, y, control))
        alpha = ALPHAS[times.long()]
        signal, spread = (part[:, None, None, None] for part in (alpha.sqrt(), (1 - alpha).sqrt()))
        noise = (x - signal * self.latent) / spread
        return target(self.latent, noise, alpha, self.prediction)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_who_knows_the_latent_is_led_to_it(prediction):
    torch.manual_seed(0)
    latent = torch.randn(2, 4, 2, 2)
    unet = Knows(latent, prediction)
    context = torch.ones(2, 3, 8)
    noise = torch.randn_like(latent)
    start = noised(latent, noise, ALPHAS[-1:].expand(2))
    got = sample(unet, None, Schedule(ALPHAS, prediction), start, HINT, context, EMPTY, steps=5)
    assert torch.allclose(got, latent, atol=1e-3)
    assert [times[0] for times, *_ in unet.seen[::2]] == [999, 749, 500, 250, 0]
    assert len(unet.seen) == 10 and not got.requires_grad


def test_as_the_demos_own_sampler():
    torch.manual_seed(0)
    mix = torch.randn(4, 4) / 2

    def velocity(x, times):
        return torch.einsum("oc,bchw->bohw", mix, x) * (1 + times[:, None, None, None] / 1000)

    class Plain(Knows):
        def __call__(self, x, times, *rest, **options):
            return velocity(x, times)

    noise = torch.randn(2, 4, 2, 2)
    ours = sample(
        Plain(None, "v"), None, Schedule(ALPHAS, "v"), noise, HINT, torch.ones(2, 3, 8), EMPTY, steps=7, guidance=1
    )
    assert torch.allclose(ours, demo_sample(velocity, noise, 7), atol=1e-5)


def test_guidance_leads_away_from_the_empty_prompt_and_steers_both():
    class Says(Knows):
        """The first number of its text."""

        def __call__(self, x, times, context, y, control, transformer_options):
            self.seen.append((times.tolist(), context, y, control))
            return context[:, :1, :1, None].expand_as(x) + 0 * x

    class Control(torch.nn.Module):
        def forward(self, x, hint, times, context, y=None):
            assert hint is HINT
            return {"output": [context], "middle": []}

    context = torch.full((2, 3, 8), 0.25)
    y = torch.arange(12.0).reshape(2, 6)
    empty = EmptyPrompt(torch.full((1, 3, 8), 0.5), torch.full((1, 4), -1.0))
    noise = torch.randn(2, 4, 2, 2)

    def run(guidance):
        unet = Says(None, "eps")
        schedule = Schedule(ALPHAS, "eps")
        return sample(unet, Control(), schedule, noise, HINT, context, empty, y, steps=1, guidance=guidance), unet.seen

    got, seen = run(3.0)
    said = 0.5 + 3 * (0.25 - 0.5)
    assert torch.allclose(got, (noise - (1 - ALPHAS[-1]).sqrt() * said) / ALPHAS[-1].sqrt(), rtol=1e-4)
    (_, told, with_text, first), (_, _, without, second) = seen
    assert torch.equal(told, context) and torch.equal(with_text, y)
    assert (without[:, :4] == -1).all() and torch.equal(without[:, 4:], y[:, 4:])
    assert torch.equal(first["output"][0], context) and (second["output"][0] == 0.5).all()
    assert len(run(1.0)[1]) == 1
