"""The example workflows, run by a real server."""

import asyncio
import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ["demo_one_control", "demo_two_controls"]
Prompt = dict[str, dict[str, Any]]


def of_type(prompt: Prompt, kind: str) -> list[dict[str, Any]]:
    found = [node for node in prompt.values() if node["class_type"] == kind]
    assert found
    return found


def set_everywhere(prompt: Prompt, kind: str, **inputs: Any) -> Prompt:
    changed = copy.deepcopy(prompt)
    for node in of_type(changed, kind):
        assert set(inputs) <= set(node["inputs"])
        node["inputs"].update(inputs)
    return changed


def quick(prompt: Prompt) -> Prompt:
    """Fewer steps and pictures, for what does not need good ones."""
    return set_everywhere(set_everywhere(prompt, "KSampler", steps=4), "EmptyLatentImage", batch_size=2)


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for title in a:
        assert np.array_equal(a[title], b[title]), title


@pytest.fixture(scope="session")
def results(server: Any) -> dict[str, Any]:
    """Each example as it ships, run once."""
    return {name: server.run(server.example(name)) for name in EXAMPLES}


@pytest.fixture(scope="session")
def quick_results(server: Any) -> dict[str, Any]:
    return {name: server.run(quick(server.example(name))) for name in EXAMPLES}


def test_the_words_of_one_control_name_the_shapes_of_its_scene(server: Any) -> None:
    from control_composer.demo.scenes import SHAPES, sample_scenes

    prompt = server.example("demo_one_control")
    caption = sample_scenes(1, of_type(prompt, "ControlComposerDemoScene")[0]["inputs"]["seed"]).captions()[0]
    words = max((node["inputs"]["text"] for node in of_type(prompt, "ControlComposerDemoPrompt")), key=len)
    assert {shape for shape in SHAPES if shape in caption} == {shape for shape in SHAPES if shape in words}
    assert caption != words


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run_as_they_ship(results: dict[str, Any], name: str) -> None:
    pictures = results[name].pictures
    assert any(title.startswith("Hint") for title in pictures)
    for title, batch in pictures.items():
        assert batch.shape == (1 if title.startswith("Hint") else 4, 128, 128, 3), title
        assert all(picture.std() > 10 for picture in batch), f"{title}: a flat picture"


def run_script(server_url: str, output: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py"), "--server", server_url, "--output", str(output)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_script_fetches_the_pictures_and_draws_the_sheet(
    server: Any, results: dict[str, Any], script_environment: dict[str, str], tmp_path: Path
) -> None:
    done = run_script(server.url, tmp_path, script_environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in EXAMPLES:
        for title, batch in results[name].pictures.items():
            stem = f"{name}_{''.join(c if c.isalnum() else '_' for c in title.lower()).replace('__', '_')}"
            for n, picture in enumerate(batch):
                path = tmp_path / f"{stem}_{n + 1}.png"
                assert str(path) in done.stdout
                with Image.open(path) as saved:
                    assert np.array_equal(np.asarray(saved.convert("RGB")), picture)
    sheet = tmp_path / "contact_sheet.png"
    assert str(sheet) in done.stdout
    with Image.open(sheet) as page:
        assert min(page.size) > 500
    assert "MiB" in done.stdout


def test_control_brings_the_edges_to_the_hint(results: dict[str, Any]) -> None:
    cv2 = pytest.importorskip("cv2")
    pictures = results["demo_one_control"].pictures

    def follows(title: str) -> float:
        """F1 of the pictures' own edges and the hint's, two pixels of tolerance, mean of the batch."""
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        hint = pictures["Hint"][0, ..., 0] > 0
        scores = []
        for picture in pictures[title]:
            edges = cv2.Canny(picture, 100, 200) > 0
            precision = (edges & (cv2.dilate(hint.astype(np.uint8), disc) > 0)).sum() / max(1, edges.sum())
            recall = (hint & (cv2.dilate(edges.astype(np.uint8), disc) > 0)).sum() / hint.sum()
            scores.append(2 * precision * recall / max(1e-6, precision + recall))
        return float(np.mean(scores))

    assert follows("With control") > 2 * follows("Without control")


def test_the_hint_is_opencvs(results: dict[str, Any], server: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    scenes = pytest.importorskip("control_composer.demo.scenes")
    prompt = server.example("demo_one_control")
    seed = of_type(prompt, "ControlComposerDemoScene")[0]["inputs"]["seed"]
    settings = of_type(prompt, "ControlComposerCanny")[0]["inputs"]
    scene = (scenes.render(scenes.sample_scenes(1, seed))[0] * 255).round().byte().numpy()
    edges = cv2.Canny(scene, settings["low"], settings["high"])
    assert np.array_equal(results["demo_one_control"].pictures["Hint"][0], np.repeat(edges[..., None], 3, axis=-1))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_graph_twice_gives_the_same_pictures(server: Any, quick_results: dict[str, Any], name: str) -> None:
    server.forget()
    again = server.run(quick(server.example(name)))
    assert not again.cached, "the host answered from its cache, so nothing was shown"
    assert_same(again.pictures, quick_results[name].pictures)


def test_a_control_that_was_used_before_gives_the_same_pictures(server: Any) -> None:
    """The Control and its hint embedding stay in the host's cache while only the sampler runs again."""
    first = quick(server.example("demo_two_controls"))
    before = server.run(first).pictures
    server.run(set_everywhere(first, "KSampler", seed=99))
    # 129 pixels make the same latent; only the cache's key of it changes.
    again = server.run(set_everywhere(first, "EmptyLatentImage", width=129))
    executed = {first[node]["class_type"] for node in first if node not in again.cached}
    assert "KSampler" in executed
    assert "ControlComposerApply" not in executed
    assert_same(again.pictures, before)


def test_another_seed_gives_other_pictures(server: Any, quick_results: dict[str, Any]) -> None:
    before = quick_results["demo_one_control"].pictures
    other = server.run(set_everywhere(quick(server.example("demo_one_control")), "KSampler", seed=2)).pictures
    assert np.array_equal(other["Hint"], before["Hint"])
    assert not np.array_equal(other["With control"], before["With control"])


def test_a_restarted_server_gives_the_same_pictures(
    server: Any, quick_results: dict[str, Any], start_another: Callable[[], Any]
) -> None:
    with start_another() as restarted:
        for name in EXAMPLES:
            again = restarted.run(quick(server.example(name)))
            assert_same(again.pictures, quick_results[name].pictures)


@pytest.mark.parametrize(
    ("name", "controlled"), list(zip(EXAMPLES, ["With control", "With both controls"], strict=True))
)
def test_zero_strength_is_bit_identical_to_no_control(
    server: Any, quick_results: dict[str, Any], name: str, controlled: str
) -> None:
    full = quick_results[name].pictures
    assert not np.array_equal(full[controlled], full["Without control"])
    off = server.run(set_everywhere(quick(server.example(name)), "ControlComposerApply", strength=0.0)).pictures
    assert np.array_equal(off[controlled], off["Without control"])
    assert np.array_equal(off["Without control"], full["Without control"])


def test_another_size_of_latent_and_batch(server: Any) -> None:
    """A latent that is not the hint's size, not square and not the size of the training pictures."""
    prompt = quick(server.example("demo_two_controls"))
    prompt = set_everywhere(prompt, "EmptyLatentImage", width=192, height=128, batch_size=3)
    assert server.run(prompt).pictures["With both controls"].shape == (3, 128, 192, 3)


# ---- errors, as the artist reads them ----


def test_an_unknown_word_lists_the_known_ones(server: Any) -> None:
    prompt = quick(server.example("demo_one_control"))
    with pytest.raises(server.Failed, match="zebra") as failure:
        server.run(set_everywhere(prompt, "ControlComposerDemoPrompt", text="a striped zebra"))
    assert failure.value.node_type == "ControlComposerDemoPrompt"
    for known in ("circle", "star", "green", "striped"):
        assert known in str(failure.value)


def test_a_picture_with_alpha_lies_on_white(server: Any, results: dict[str, Any]) -> None:
    """An opaque alpha changes nothing; where the picture is transparent its edges are gone."""
    prompt = quick(server.example("demo_one_control"))
    canny = of_type(prompt, "ControlComposerCanny")[0]
    prompt["100"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 128, "height": 128}}
    prompt["101"] = {
        "class_type": "JoinImageWithAlpha",
        "inputs": {"image": canny["inputs"]["image"], "alpha": ["100", 0]},
    }
    canny["inputs"]["image"] = ["101", 0]
    opaque = server.run(prompt).pictures["Hint"]
    assert np.array_equal(opaque, results["demo_one_control"].pictures["Hint"])
    prompt["100"]["inputs"]["value"] = 1.0  # the host's node takes a mask, 1 where it is transparent
    assert opaque.any() and not server.run(prompt).pictures["Hint"].any()


def test_a_file_that_is_no_control_is_refused_by_name(server: Any) -> None:
    folder = server.base / "models" / "controlnet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shopping_list.safetensors").write_text("eggs, milk, a control")
    prompt = set_everywhere(
        quick(server.example("demo_one_control")), "ControlComposerLoad", control_net_name="shopping_list.safetensors"
    )
    with pytest.raises(server.Failed, match=r"shopping_list\.safetensors") as failure:
        server.run(prompt)
    assert failure.value.node_type == "ControlComposerLoad"


def test_after_an_error_the_next_run_is_right(server: Any, quick_results: dict[str, Any]) -> None:
    prompt = quick(server.example("demo_one_control"))
    with pytest.raises(server.Failed):
        server.run(set_everywhere(prompt, "ControlComposerDemoPrompt", text="a zebra"))
    assert_same(server.run(prompt).pictures, quick_results["demo_one_control"].pictures)


# ---- the script behind `host.py demo` ----


def test_the_script_says_that_no_server_answers(script_environment: dict[str, str], tmp_path: Path) -> None:
    done = run_script("http://127.0.0.1:9", tmp_path, script_environment)
    assert done.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in done.stderr
    assert "host.py serve" in done.stderr
    assert "Traceback" not in done.stderr


def run_client(server: Any, prompt: Prompt) -> tuple[Any, list[tuple[str, int, int]]]:
    aiohttp = pytest.importorskip("aiohttp")
    from control_composer.demo.client import Client

    told: list[tuple[str, int, int]] = []

    async def run() -> Any:
        async with aiohttp.ClientSession() as session:
            return await Client(session, server.url).run(prompt, lambda *progress: told.append(progress))

    return asyncio.run(run()), told


def test_the_script_hears_of_the_sampling_steps(server: Any) -> None:
    prompt = set_everywhere(quick(server.example("demo_one_control")), "KSampler", seed=1234)
    _, told = run_client(server, prompt)
    steps = [(value, most) for title, value, most in told if title == "KSampler with control" and most]
    # comfy.utils.ProgressBar always tells the first and the last step, and those between unless they follow too fast.
    assert (steps[0], steps[-1]) == ((1, 4), (4, 4))
    assert steps == sorted(set(steps))


def test_a_cancelled_run_is_taken_off_the_server(server: Any) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from control_composer.demo.client import Client

    prompt = set_everywhere(server.example("demo_one_control"), "KSampler", seed=4321, steps=500)

    async def run() -> None:
        sampling = asyncio.Event()
        async with aiohttp.ClientSession() as session:
            client = Client(session, server.url)
            running = asyncio.create_task(client.run(prompt, lambda _, value, most: sampling.set() if value else None))
            await sampling.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            for _ in range(600):
                queue = await client.get_json("/queue")
                if not queue["queue_running"] and not queue["queue_pending"]:
                    break
                await asyncio.sleep(0.1)
            else:
                pytest.fail("still running")
            ended = list((await client.get_json("/history")).values())[-1]["status"]["messages"]
            assert "execution_interrupted" in dict(ended)

    asyncio.run(run())


def test_the_script_prints_the_nodes_own_sentence(server: Any) -> None:
    from control_composer.demo.client import ServerError

    prompt = quick(server.example("demo_one_control"))
    with pytest.raises(ServerError, match=r'node \d+ ".*ords.*": .*zebra.*circle'):
        run_client(server, set_everywhere(prompt, "ControlComposerDemoPrompt", text="a zebra"))
    with pytest.raises(ServerError, match=r'node \d+ "Load ControlNet.*": .*nowhere\.safetensors'):
        run_client(server, set_everywhere(prompt, "ControlComposerLoad", control_net_name="nowhere.safetensors"))
