"""The narrow autoencoder and the host's TAESD class, filled up with zeros, are the same function."""

import pytest
import torch

from control_composer.demo.autoencoder import Autoencoder, host_state_dict


def test_the_hosts_class_computes_the_same():
    taesd = pytest.importorskip("comfy.taesd.taesd")
    torch.manual_seed(0)
    narrow = Autoencoder().requires_grad_(False)
    narrow.vae_scale.fill_(1.7)
    host = taesd.TAESD()
    host.load_state_dict(host_state_dict(narrow.state_dict()))
    host.requires_grad_(False)
    picture = torch.rand(2, 3, 64, 96)
    latent = narrow.encode(picture)
    assert latent.shape == (2, 4, 8, 12)
    torch.testing.assert_close(host.encode(picture * 2 - 1), latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(host.decode(latent) / 2 + 0.5, narrow.decode(latent), rtol=0, atol=1e-5)
