"""Preprocessors against the loop over frames that other packs run: seconds of batches, and memory of a long one.

    python host.py python benchmarks/preprocess.py [--frames 1 8 64] [--sizes 512 1024] [--rounds 5] [--json FILE]
    python host.py python benchmarks/preprocess.py --device cuda --networks
    python host.py python benchmarks/preprocess.py --only Canny Blur --threads 1
    python host.py python benchmarks/preprocess.py --memory [--only Canny]
    python host.py python benchmarks/preprocess.py --quick

Ours is what the node runs: a float batch of the CPU in, its hints there out, through the host's device in chunks. The others take turns with it on the
same pictures, and every ratio is over ours of the same round: median [least..most], above 1 where ours is faster.

  loop      the published recipe with OpenCV and numpy on each frame, between floats and 8 bits as comfyui_controlnet_aux converts them
  alone     the recipe on 8-bit pictures that are there already
  singles   (networks) ours, one frame at a time
  peer      (networks) the class of controlnet-aux on each frame on the same device, its own resizing and 8 bits included

Networks have random weights at their real widths, the same in both, written to a temporary folder. `--clock process` counts the processor's time instead
of the wall's, for a CPU that others use too; with --threads 1, or waiting threads count as well. With --memory: the most memory beside input and
output while 1,000 frames of 512 px are processed, in MiB; on CUDA that of torch's allocator, on a CPU the resident set's.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import comfy.cli_args
import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from control_composer.benchmarks.peer_networks import Detector
    from control_composer.benchmarks.recipes import Recipe

# The host's other modules choose a device when they are imported, so those that use them are imported after the options are read.

MEBI = 2**20
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
SAMPLING = 0.002
"""Seconds between looks at the resident set."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.device == "cpu" or not torch.cuda.is_available():
        comfy.cli_args.args.cpu = True
    if options.threads:
        import cv2

        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    from comfy import model_management

    device = model_management.get_torch_device()
    if options.device and device.type != options.device:
        raise SystemExit(
            f"--device is {options.device}, but the host runs on {device.type} here and that was expected; "
            "leave --device out, or run where there is such a device."
        )
    report = run(options, device)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the host's own choice if left out")
    parser.add_argument("--frames", nargs="+", type=int, metavar="COUNT", help="frames in a batch: 1 8 64")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="PIXELS", help="sides of the pictures: 512 1024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="ID", help="ids of preprocessors, as RecolorLuminance")
    parser.add_argument("--networks", action="store_true", help="those with networks, in place of those without")
    parser.add_argument("--memory", action="store_true", help="memory in place of time")
    parser.add_argument("--quick", action="store_true", help="two tiny batches, two rounds: whether everything runs")
    parser.add_argument("--threads", type=int, help="of torch and of OpenCV")
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="process: see above")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    options.frames = options.frames or ([20] if options.quick else [1000]) if options.memory else options.frames
    options.frames = options.frames or ([1, 3] if options.quick else [1, 8, 64])
    options.sizes = options.sizes or ([64] if options.quick else [512] if options.memory else [512, 1024])
    options.rounds = 2 if options.quick else options.rounds
    if wrong := [value for value in [*options.frames, *options.sizes, options.rounds] if value < 1]:
        parser.error(f"{wrong[0]} was found, but counts of at least 1 were expected; give for example --frames 8.")
    return options


def run(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Everything that was measured, as it goes into the JSON file; printed as a table as it comes."""
    import cv2

    from control_composer.benchmarks.surroundings import commit, hardware

    names, skipped = chosen(options)
    report: dict[str, Any] = {
        "date": str(datetime.date.today()),
        "commit": commit(),
        "hardware": hardware(device.type),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "rounds": options.rounds,
        "clock": options.clock,
        "skipped": skipped,
        "rows": [],
    }
    with TemporaryDirectory() as folder, torch.inference_mode():
        peers = weights_for(names, Path(folder), device, report) if options.networks else {}
        show_surroundings(report)
        for name in names[:1]:
            ours(name)  # imports what stays
        gc.collect()
        gc.freeze()  # or collecting takes longer before each call than the call
        for pixels in options.sizes:
            for count in options.frames:
                image = pictures(count, pixels)
                for name in names:
                    tell(f"{name}: {count} frame{'s' if count > 1 else ''} of {pixels} px")
                    row = {"name": name, "frames": count, "pixels": pixels}
                    if options.memory:
                        row |= memory(name, image, device)
                    else:
                        row |= times(
                            contenders(name, image, peers.get(name)), options.rounds, device, CLOCKS[options.clock]
                        )
                    report["rows"].append(row)
                    print(line(row), flush=True)
        gc.unfreeze()
    return report


def chosen(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The ids to measure, and a sentence where some are not."""
    from control_composer.benchmarks.peer_networks import PEER_NETWORKS
    from control_composer.benchmarks.recipes import RECIPES

    known = list(PEER_NETWORKS if options.networks else RECIPES)
    if wrong := [name for name in options.only or () if name not in known]:
        raise SystemExit(
            f"--only has {wrong[0]!r}, but one of {', '.join(known)} was expected; write the id as it is there"
            f"{'' if options.networks else ', or add --networks'}."
        )
    names = [name for name in known if name in (options.only or known)]
    try:
        if options.networks:
            import controlnet_aux  # noqa: F401
    except ImportError:
        return [], ["Networks are left out: controlnet-aux, whose classes make their files, is not installed."]
    return names, []


def weights_for(
    names: Sequence[str], folder: Path, device: torch.device, report: dict[str, Any]
) -> dict[str, Detector]:
    """The other packs' detectors, with the weights that our nodes find in `folder`."""
    import folder_paths  # ComfyUI's

    from control_composer.benchmarks.peer_networks import PEER_NETWORKS, written
    from control_composer.nodes.annotator_files import FOLDER

    folder_paths.add_model_folder_path(FOLDER, str(folder), is_default=True)
    found = {}
    for name in names:
        try:
            found[name] = PEER_NETWORKS[name].detect(written(name, folder), device)
        except (ImportError, AttributeError) as problem:
            report["skipped"].append(f"The peer of {name} is left out: {problem}")
    return found


def pictures(count: int, pixels: int) -> Tensor:
    """Frames with edges of every strength, (count, pixels, pixels, 3) float32 of whole 8-bit steps."""
    import cv2

    random = np.random.default_rng(pixels)
    frames = torch.empty(count, pixels, pixels, 3)
    for frame in frames:
        coarse = random.integers(0, 256, (max(2, pixels // 24), max(2, pixels // 24), 3), dtype=np.uint8)
        fine = random.integers(0, 24, (pixels, pixels, 3), dtype=np.uint8)
        frame.copy_(
            torch.from_numpy(cv2.add(cv2.resize(coarse, (pixels, pixels), interpolation=cv2.INTER_CUBIC), fine))
        )
    return frames.div_(255.0)


def ours(name: str) -> Callable[[Tensor], Tensor]:
    """What the node of a preprocessor runs."""
    from control_composer.nodes.preprocess import preprocess
    from control_composer.preprocessors import PREPROCESSORS

    preprocessor = next(one for one in PREPROCESSORS if one.id == name)
    return lambda image: preprocess(preprocessor, image, 0)[0]


def contenders(name: str, image: Tensor, peer: Detector | None) -> dict[str, Callable[[], Any]]:
    """Everyone's way to the hints of this batch, ours first."""
    from control_composer.benchmarks.recipes import RECIPES

    whole = ours(name)
    found: dict[str, Callable[[], Any]] = {"ours": lambda: whole(image)}
    if name in RECIPES:
        recipe: Recipe = RECIPES[name]
        eight_bit = [eight_bit_picture(frame) for frame in image]
        found["loop"] = lambda: frame_by_frame(recipe, image)
        found["alone"] = lambda: [recipe(picture) for picture in eight_bit]
        return found
    found["singles"] = lambda: torch.cat([whole(frame.unsqueeze(0)) for frame in image])
    if peer is not None:
        found["peer"] = lambda: frame_by_frame(peer, image)
    return found


def frame_by_frame(recipe: Recipe | Detector, image: Tensor) -> Tensor:
    """As comfyui_controlnet_aux does it."""
    hints = []
    for frame in image:
        hint = recipe(eight_bit_picture(frame))
        if hint.ndim == 2:
            hint = np.concatenate([hint[:, :, None]] * 3, axis=2)
        hints.append(torch.from_numpy(hint.astype(np.float32) / 255.0))
    return torch.stack(hints)


def eight_bit_picture(frame: Tensor) -> np.ndarray:
    return np.asarray(frame.cpu().numpy() * 255.0, dtype=np.uint8)


def times(
    calls: dict[str, Callable[[], Any]], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, Any]:
    """Seconds of each in every round, who begins changing from round to round, and how many times ours the others take."""
    from control_composer.benchmarks.runs import seconds_of

    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for index in range(rounds):
        first = index % len(calls)
        for name in [*calls][first:] + [*calls][:first]:
            seconds[name].append(seconds_of(calls[name], device, clock))
    ratios = {
        name: spread([theirs / mine for theirs, mine in zip(taken, seconds["ours"], strict=True)])
        for name, taken in seconds.items()
        if name != "ours"
    }
    return {"seconds": seconds, "ratios": ratios}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def memory(name: str, image: Tensor, device: torch.device) -> dict[str, Any]:
    """The most bytes beside input and output."""
    call = ours(name)
    call(image[:1])  # what stays, such as libraries and weights, is there before
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        hint = call(image)
        return {"bytes": torch.cuda.max_memory_allocated(device) - before, "output": hint.nbytes}
    hint, most = resident(lambda: call(image))
    return {"bytes": most - hint.nbytes, "output": hint.nbytes}


def resident(call: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """The call's result and by how many bytes the process grew at most."""
    import psutil

    process, done = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(SAMPLING):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
        most = max(most, process.memory_info().rss)
    finally:
        done.set()
        watcher.join()
    return result, most - before


def show_surroundings(report: dict[str, Any]) -> None:
    """What stands above the table."""
    print(
        f"{report['date']}, commit {report['commit']}, {report['hardware']}, torch {report['torch']}, OpenCV {report['opencv']}, "
        f"{report['rounds']} rounds, {report['clock']} time"
    )
    for sentence in report["skipped"]:
        print(sentence)


def line(row: dict[str, Any]) -> str:
    head = f"{row['name']:18}{row['frames']:5} × {row['pixels']:4} px"
    if "bytes" in row:
        return f"{head}  {row['bytes'] / MEBI:9.1f} MiB beside input and output of {row['output'] / MEBI:.0f} MiB each"
    ratios = "  ".join(
        f"{name} {ratio['median']:6.2f} [{ratio['least']:.2f}..{ratio['most']:.2f}]"
        for name, ratio in row["ratios"].items()
    )
    return f"{head}  {1000 * statistics.median(row['seconds']['ours']):9.1f} ms  {ratios}"


def tell(words: str) -> None:
    """Progress, kept apart from the table."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
