"""FID and KID of sets of pictures by a small network, against the plain distance and against the kernel's sum written out."""

import io
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from control_composer.evaluation import sets
from control_composer.evaluation.errors import EvaluationError
from control_composer.evaluation.frechet import frechet_distance
from control_composer.evaluation.sets import FeatureNetwork, features_of, inception, set_distance


def means(pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([pictures.mean(dim=(1, 2)), pictures.std(dim=(1, 2))], dim=1)


NETWORK = FeatureNetwork("means and deviations", means)


def pictures(count: int, seed: int, gain: float = 1.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 8, 8, 3, generator=random) * torch.rand(count, 1, 1, 3, generator=random) * gain


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate with the kernel (x·y / D + 1)³."""
    n, m, width = len(x), len(y), x.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / width + 1) ** 3

    own = [(kernel(a, a).sum() - np.trace(kernel(a, a))) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(sum(own) - 2 * kernel(x, y).sum() / (n * m))


def test_fid_and_kid():
    pytest.importorskip("torchmetrics")
    real, made = pictures(24, 0), pictures(24, 1, 0.7)
    found = set_distance(real, made, NETWORK, batch=5)
    assert found.fid == pytest.approx(frechet_distance(means(real), means(made)), rel=1e-4)
    # Each subset is the whole set, in another order.
    expected = kernel_distance(means(real).double().numpy(), means(made).double().numpy())
    assert found.kid == pytest.approx(expected, rel=1e-4) and found.kid_spread == pytest.approx(0, abs=1e-9)
    assert (found.network, found.real, found.made) == ("means and deviations", 24, 24)


def test_the_seed_draws_the_subsets_and_leaves_the_callers_numbers_alone():
    pytest.importorskip("torchmetrics")
    real, made = pictures(20, 0), pictures(9, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = [set_distance(real, made, NETWORK, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1] and found[0].kid != found[2].kid and found[0].fid == found[2].fid
    assert found[0].kid_spread > 0
    default = set_distance(real, made, NETWORK)
    assert default == found[0]


def test_equal_sets_are_near():
    pytest.importorskip("torchmetrics")
    real = pictures(20, 0)
    found = set_distance(real, real, NETWORK)
    assert found.fid == pytest.approx(0, abs=1e-6) and found.kid <= 0


def test_features_do_not_depend_on_the_batch():
    real = pictures(7, 0)
    assert torch.allclose(features_of(real, NETWORK, batch=3), means(real).double(), atol=1e-6)
    with pytest.raises(EvaluationError, match=r"^features: found shapes \(7, 8, 8\)"):
        features_of(real[..., 0], NETWORK)


def test_one_picture_is_no_set():
    pytest.importorskip("torchmetrics")
    with pytest.raises(EvaluationError, match=r"^features: found 6 features of 1 pictures, but"):
        set_distance(pictures(1, 0), pictures(4, 1), NETWORK)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    for name in ("torchmetrics", "torchmetrics.image.fid", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, name, None)
    text = r"^Compare Sets: found no package 'torchmetrics' .*, but it was expected .*; install it with: pip install torchmetrics$"
    with pytest.raises(EvaluationError, match=text):
        set_distance(pictures(4, 0), pictures(4, 1), NETWORK)
    with pytest.raises(EvaluationError, match=r"'torch-fidelity' .*; install it with: pip install torch-fidelity$"):
        inception({}, "weights.pth")


class Inception:
    """In torchmetrics' place: what it is given and how it answers."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: io.BytesIO) -> None:
        tensors = torch.load(feature_extractor_weights_path, weights_only=True)
        if set(tensors) != {"weight"}:
            raise RuntimeError("Error(s) in loading:\n\tMissing key(s)\nmore")
        self.width, self.weight = int(features[0]), tensors["weight"]

    def parameters(self) -> Iterator[torch.Tensor]:
        yield self.weight

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.dtype == torch.uint8 and pictures.shape[1] == 3
        return pictures.float().mean(dim=(2, 3)).repeat(1, self.width // 3 + 1)[:, : self.width]


def test_inception_by_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "needed", lambda module, package: type("fid", (), {"NoTrainInceptionV3": Inception}))
    text = r"^'w.pth': found other tensors \(Error\(s\) in loading: \tMissing key\(s\)\), but the weights of Inception-v3 .* were expected; download "
    with pytest.raises(EvaluationError, match=text):
        inception({"other": torch.zeros(1)}, "w.pth")
    network = inception({"weight": torch.zeros(1)}, "w.pth", features=64)
    assert network.name == "Inception-v3, 64 features, pictures antialiased to 299 × 299 (w.pth)"
    found = features_of(torch.full((3, 8, 8, 3), 0.5), network, batch=2)
    assert found.shape == (3, 64) and found.eq(128).all()


def test_it_is_torchmetrics_own_distance_of_another_network() -> None:
    """The metric with the network inside, one picture after the other, beside our features made before."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten()).double()
    layers.num_features = 5 * 9
    metric = fid.FrechetInceptionDistance(feature=layers, normalize=True).set_dtype(torch.float64)
    real, made = pictures(30, 0), pictures(24, 1, 0.8)
    for is_real, batch in ((True, real), (False, made)):
        for one in batch.split(1):
            metric.update(one.movedim(-1, 1).double(), real=is_real)

    def features(batch: torch.Tensor) -> torch.Tensor:
        return layers(batch.movedim(-1, 1).double())

    found = set_distance(real, made, FeatureNetwork("layers", features), batch=7)
    assert found.fid == pytest.approx(float(metric.compute()), rel=1e-5)
    assert found.fid == pytest.approx(frechet_distance(features(real), features(made)), rel=1e-5) and found.fid > 0.01


def test_the_published_class_with_random_weights() -> None:
    """torchmetrics' Inception itself, where torch-fidelity is installed: the distance is that of its own metric on 8-bit pictures."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        random = module.FeatureExtractorInceptionV3("inception-v3-compat", ["64"])
    network = inception(random.state_dict(), "random.pth", features=64)
    real, made = pictures(3, 0), pictures(4, 1)
    theirs = fid.FrechetInceptionDistance(feature=network.module)
    for is_real, batch in ((True, real), (False, made)):
        theirs.update((batch.movedim(-1, 1) * 255).round().byte(), real=is_real)
    assert set_distance(real, made, network).fid == pytest.approx(float(theirs.compute()), rel=1e-3, abs=1e-9)
    assert features_of(real, network).shape == (3, 64)


def test_lists_of_several_sizes_are_one_set() -> None:
    real = [pictures(3, 0), pictures(2, 1)[:, :5], pictures(1, 2)[:, :, :7]]
    assert torch.equal(features_of(real, NETWORK, batch=2), torch.cat([means(one) for one in real]).double())
    pytest.importorskip("torchmetrics")
    found = set_distance(real, pictures(4, 3), NETWORK)
    assert (found.real, found.made) == (6, 4)
