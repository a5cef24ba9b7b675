"""Trainable Copy and Train ControlNet on the demo world, as a graph calls them."""

import pytest
import torch

pytest.importorskip("comfy")
import comfy.model_management
import comfy.utils
import folder_paths

from control_composer.control import EncoderNetwork
from control_composer.control.compatibility import check_base
from control_composer.demo.scenes import render, sample_scenes
from control_composer.demo.world import load_world
from control_composer.nodes import train, training_session
from control_composer.nodes.dataset import BY_ID, condition_of
from control_composer.nodes.train import ControlComposerTrain, ControlComposerTrainableCopy
from control_composer.training.checkpoint import load
from control_composer.training.copy import trainable_copy
from control_composer.training.dataset.dataset import ConditionDataset
from control_composer.training.dataset.example import Example, Found
from control_composer.training.dataset.settings import DatasetSettings
from control_composer.training.errors import TrainingError
from control_composer.training.recipe import Recipe
from control_composer.training.validation import read_scores

from ..training.bases import inputs

Interrupted = comfy.model_management.InterruptProcessingException
CPU = torch.device("cpu")


class Page:
    """What the host's progress bar would send, and its way of telling an interruption."""

    def __init__(self):
        self.bars, self.pictures, self.interrupt_at = [], [], None

    def __call__(self, value, total, preview, node_id=None):
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.bars.append((value, total))
        if preview is not None:
            self.pictures.append(preview[1])
        if (value, total) == self.interrupt_at:
            comfy.model_management.interrupt_current_processing()


@pytest.fixture(scope="module", autouse=True)
def page():
    page, before = Page(), comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(page)
    yield page
    comfy.utils.set_progress_bar_global_hook(before)


@pytest.fixture(autouse=True)
def fresh(page, monkeypatch):
    # The host drops what comes within a tenth of a second.
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    page.__init__()
    yield
    comfy.model_management.interrupt_current_processing(False)


@pytest.fixture(scope="module", autouse=True)
def output(tmp_path_factory):
    before, folder = folder_paths.get_output_directory(), tmp_path_factory.mktemp("output")
    folder_paths.set_output_directory(str(folder))
    yield folder / "control_composer"
    folder_paths.set_output_directory(before)


@pytest.fixture(scope="module")
def world():
    with torch.inference_mode():
        return load_world()


def make_dataset(count=4, seed=5):
    scenes = sample_scenes(count, seed)
    pictures = render(scenes)
    examples = tuple(Example(f"scene {i}", pictures[i], scenes.captions()[i]) for i in range(count))
    return ConditionDataset(Found(examples), DatasetSettings(resolution=64), condition_of(BY_ID["Canny"], {}))


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def queue(world, dataset):
    """Runs the node as the host does."""

    def queue(name="first", recipe=None, **changes):
        plain = {
            "steps": 4,
            "batch": 2,
            "rate": 1e-3,
            "seed": 0,
            "world": world,
            "warm_up": 0,
            "log_every": 1,
            "validate_every": 2,
            "validation_pictures": 2,
            "validation_steps": 2,
            "guidance": 1.0,
        }
        with torch.inference_mode():
            recipe = recipe or Recipe(world.model)
            return ControlComposerTrain.execute(recipe, dataset, world.vae, name, **(plain | changes)).args

    return queue


@pytest.fixture(scope="module")
def first(queue, world):
    before = {name: weight.clone() for name, weight in world.model.model.diffusion_model.state_dict().items()}
    return before, queue()


def weights(control):
    return {name: weight.clone() for name, weight in control.network.module.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_gives_a_control_a_chart_pictures_and_a_report(first, world, output):
    before, (control, chart, pictures, report) = first
    assert_equal(before, world.model.model.diffusion_model.state_dict())
    network = control.network
    assert type(network) is EncoderNetwork and network.name == "first"
    assert dict(network.about) == {"base": network.base, "steps": "4", "condition": "Canny"}
    zero = [layer[0].weight for layer in network.module.zero_convs]
    assert all(weight.abs().max() > 0 and weight.dtype == torch.float32 for weight in zero)
    assert chart.shape == (1, 560, 640, 3) and chart.min() >= 0 and chart.max() == 1
    assert pictures.shape == (2, 64, 64, 3)
    assert read_scores(output / "training" / "first")[0] == [0, 2, 4]
    lines = report.splitlines()
    assert lines[0] == "'first': step 4 of 4, trained from the beginning"
    assert lines[3] == "learned from: 4 pictures, hints by Canny"
    assert lines[4].startswith("validation on pictures that were learned from, edge F1 within 2 pixels: ")
    assert lines[5] == "no sudden convergence seen"


def test_the_control_computes_what_was_trained(first, world, output):
    _, (control, *_) = first
    network = control.network
    state = load(output / "training" / "first", CPU)
    with torch.inference_mode(False):
        trained = trainable_copy(world.model.model.diffusion_model)
        trained.load_state_dict(state.average)
    given = inputs(trained, size=8)
    with torch.no_grad():
        wanted = trained(**given)
        hint = network.embed_hint(given["hint"])
        got = network.residuals(given["x"], hint, given["timesteps"], given["context"])
    for ours, theirs in zip((*got.output, *got.middle), (*wanted["output"], *wanted["middle"]), strict=True):
        assert theirs.abs().max() > 0 and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_finished_training_gives_the_same_at_once(first, queue, monkeypatch):
    _, (control, chart, pictures, report) = first
    for name in ("run", "prepare"):
        monkeypatch.setattr(train, name, None)
    again = queue()
    assert_equal(weights(control), weights(again[0]))
    assert torch.equal(chart, again[1]) and torch.equal(pictures, again[2])
    told = ("trained from the beginning", "finished before; nothing was left to do")
    assert again[3] == report.replace(*told)


def test_the_page_sees_progress_and_one_picture_of_all(queue, page):
    queue("shown", steps=2, log_every=2)
    assert (1, 4) in page.bars or (4, 4) in page.bars  # pictures and captions are prepared, or were
    assert [bar for bar in page.bars if bar[1] == 2][-1] == (2, 2)
    first_picture, last_picture = page.pictures[0], page.pictures[-1]
    # Two charts, hints, pictures; the first validation comes before any loss.
    assert last_picture.size[0] == 640 and last_picture.size[1] > 700
    assert first_picture.tobytes() != last_picture.tobytes()


def test_an_interrupted_training_keeps_its_state_and_goes_on_as_if_nothing_had_been(first, queue, page, output):
    _, (control, _, pictures, _) = first
    folder = output / "training" / "stopped"
    page.interrupt_at = (3, 4)
    with pytest.raises(Interrupted):
        queue("stopped")
    step = load(folder, CPU).step
    assert step == 3
    # The next one to run must not be interrupted by what interrupted this one.
    assert not comfy.model_management.processing_interrupted()
    page.interrupt_at = None
    got = queue("stopped")
    assert_equal(weights(control), weights(got[0]))
    assert torch.equal(pictures, got[2])
    assert got[3].splitlines()[0] == "'stopped': step 4 of 4, continued after step 3"
    tables = [(folder.parent / name / "losses.csv").read_text() for name in ("first", "stopped")]
    assert tables[0] == tables[1]


def test_interrupted_within_a_validation_it_saves_the_step_it_was_at(queue, page, output, monkeypatch):
    sampled = training_session.Validation._draw

    def draw(self, *arguments):
        if self.data and (output / "training" / "midway" / "losses.csv").read_text().count("\n") == 3:
            # As a network of the host may tell it, from anywhere.
            raise Interrupted
        return sampled(self, *arguments)

    monkeypatch.setattr(training_session.Validation, "_draw", draw)
    with pytest.raises(Interrupted):
        queue("midway")
    assert load(output / "training" / "midway", CPU).step == 3


def test_interrupted_while_pictures_are_prepared_it_goes_on_there(world, page, queue, output, monkeypatch):
    fresh = make_dataset(count=3, seed=77)
    encoded = []
    words = training_session.prepare.__globals__["encode"]
    page.interrupt_at = (1, 3)

    def queue_fresh():
        with torch.inference_mode():
            return training_session.prepare(fresh, world.vae, counted, world.model, "base")

    def counted(texts):
        encoded.extend(texts)
        return world.encode(*texts)[0][0], None

    assert words is training_session.encode
    with pytest.raises(Interrupted):
        queue_fresh()
    page.interrupt_at = None
    encoded.clear()
    assert len(queue_fresh()) == 3
    assert 0 < len([text for text in encoded if text]) < 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"seed": 1},
            "The training 'first' was begun with seed 0, but 1 was asked for, and a training cannot change it on the way; "
            "choose another name to begin anew, or take back the change to continue.",
        ),
        (
            {"start": "gaussian"},
            "The training 'first' was begun with start zero, but gaussian was asked for, and a training cannot change it on the way; "
            "choose another name to begin anew, or take back the change to continue.",
        ),
        (
            {"steps": 3},
            "The training 'first' has done 4 steps, but only 3 were asked for; set steps to 4 or more, or choose another name to begin anew.",
        ),
        (
            {"world": None},
            "Train ControlNet has neither clip nor world connected, but one of them was expected, which reads the captions; "
            "connect clip, or for the demo world its world output.",
        ),
        (
            {"name": "../elsewhere"},
            "The training's name is '../elsewhere', but one of a folder, without / \\ : * ? \" < > |, was expected; "
            "choose another, as my canny control.",
        ),
        (
            {"name": "gray", "hint_channels": 1},
            "The trainable copy reads hints of 1 channels, but 3 were expected, as the data set's hints have; "
            "set hint_channels of Trainable Copy to 3.",
        ),
    ],
)
def test_what_cannot_go_on_says_so_and_what_to_do(first, queue, world, changes, text):
    recipe = Recipe(world.model, **{name: changes.pop(name) for name in ("start", "hint_channels") if name in changes})
    with pytest.raises(TrainingError) as caught:
        queue(recipe=recipe, **changes)
    assert str(caught.value) == text


def test_too_little_memory_says_what_helps(queue, monkeypatch):
    def full(*_, **__):
        raise comfy.model_management.OOM_EXCEPTION("no room")

    monkeypatch.setattr("control_composer.training.loop.train", full)
    with pytest.raises(TrainingError, match="needs more memory than 'cpu' has, but room for 2 pictures at once"):
        queue("full")


def test_a_base_in_half_precision_and_pictures_that_are_not_learned_from(queue, world, output):
    with torch.inference_mode():
        half = world.model.clone()
        half.model = load_world().model.model.half()
    held_out = make_dataset(count=2, seed=9)
    _, _, pictures, report = queue(
        "half", Recipe(half), steps=1, validation=held_out, precision="bf16", validation_pictures=1
    )
    assert pictures.shape == (1, 64, 64, 3)
    assert "validation on pictures that were not learned from, edge F1" in report
    assert {weight.dtype for weight in half.model.diffusion_model.state_dict().values()} == {torch.float16}
    # The learned weights began as the base's and stay in full precision.
    average = load(output / "training" / "half", CPU).average["input_blocks.0.0.weight"]
    own = half.model.diffusion_model.state_dict()["input_blocks.0.0.weight"]
    assert average.dtype == torch.float32 and 0 < (average - own.float()).abs().max() < 0.01


def test_lite_is_a_control_too(queue, world, output):
    control, *_ = queue("lite", Recipe(world.model, form="lite"), steps=1)
    network, state = control.network, load(output / "training" / "lite", CPU)
    with torch.inference_mode(False):
        trained = trainable_copy(world.model.model.diffusion_model, form="lite")
        trained.load_state_dict(state.average)
    given = inputs(world.model.model.diffusion_model, size=8)
    with torch.no_grad():
        wanted = trained(**given)
        got = network.residuals(given["x"], network.embed_hint(given["hint"]), given["timesteps"], given["context"])
    assert all(torch.equal(a, b) for a, b in zip(got.output, wanted["output"], strict=True))
    assert torch.equal(got.middle[0], wanted["middle"][0]) and got.middle[0].abs().max() > 0
    check_base(network, world.model.model)


def test_a_copy_is_described_and_checked_at_once(world):
    recipe, text = ControlComposerTrainableCopy.execute(world.model, start="gaussian", seed=3).args
    assert (recipe.model, recipe.hint_channels, recipe.start, recipe.form, recipe.seed) == (
        world.model,
        3,
        "gaussian",
        "copy",
        3,
    )
    assert text.splitlines()[1:] == ["form: copy, gaussian convolutions, 3 hint channels", "parameters: 1.9 M"]
    assert text.splitlines()[0].endswith("predicts velocity")
    wrong = world.model.clone()
    wrong.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(TrainingError, match="The connected model's UNet is a Linear, but the UNet of SD1, SD2, SDXL"):
        ControlComposerTrainableCopy.execute(wrong)
