"""Reading an encoder's hyperparameters off its shapes (names in cldm layout)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path

from .encoder import HINT_WIDTHS, NO_ATTENTION, EncoderHyperparameters, Shape
from .errors import IncompleteError, short

FIRST_NAMES = 3
# What stands beside quantised weights: the numbers that they are to be multiplied by.
SCALES = (".scale_weight", ".weight_scale", ".comfy_quant", "scaled_fp8", ".absmax", ".SCB")


class MissingNameError(LookupError):
    """A tensor that the hyperparameters are read from is absent or has another number of dimensions."""


def read_encoder(shapes: Mapping[str, Shape]) -> EncoderHyperparameters:
    """The hyperparameters whose network has these shapes, if any has; `check_shapes` tells whether.

    Raises MissingNameError where a tensor that tells one of them is absent.
    """
    width, in_channels = _at(shapes, "input_blocks.0.0.weight", 4)[:2]
    if width == 0:
        raise MissingNameError("input_blocks.0.0.weight")
    num_res_blocks, channel_mult, depths = [0], [1], []
    attentions = []
    index = 1
    while True:
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in shapes:
            num_res_blocks.append(0)
            channel_mult.append(channel_mult[-1])
        elif f"{block}.0.out_layers.3.weight" in shapes:
            num_res_blocks[-1] += 1
            channel_mult[-1] = _at(shapes, f"{block}.0.out_layers.3.weight", 4)[0] // width
            depths.append(_depth(shapes, f"{block}.1"))
            attentions.append(f"{block}.1")
        else:
            break
        index += 1
    middle = _depth(shapes, "middle_block.1")
    attentions.append("middle_block.1")

    to_k = [name for block in attentions if (name := f"{block}.transformer_blocks.0.attn2.to_k.weight") in shapes]
    projections = [name for block in attentions if (name := f"{block}.proj_in.weight") in shapes]
    return EncoderHyperparameters(
        in_channels=in_channels,
        model_channels=width,
        hint_channels=_at(shapes, "input_hint_block.0.weight", 4)[1],
        num_res_blocks=tuple(num_res_blocks),
        channel_mult=tuple(channel_mult),
        transformer_depth=tuple(depths),
        transformer_depth_middle=middle,
        context_dim=_at(shapes, to_k[0], 2)[1] if to_k else None,
        # Without any attention the host's ControlNet takes either; SDXL's is linear.
        use_linear_in_transformer=len(shapes[projections[0]]) == 2 if projections else True,
        adm_in_channels=_at(shapes, "label_emb.0.0.weight", 2)[1] if "label_emb.0.0.weight" in shapes else None,
    )


def hint_widths_of(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """Channels of the hint network at each size; the ordinary ones where tensors that tell them are absent."""
    found = [shapes.get(f"input_hint_block.{4 * size}.weight", ()) for size in range(len(HINT_WIDTHS))]
    return tuple(shape[0] for shape in found) if all(len(shape) == 4 and shape[0] for shape in found) else HINT_WIDTHS


def check_shapes(
    path: Path,
    family: str,
    expected: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    names: Mapping[str, str] | None = None,
) -> None:
    """Compare with every tensor that such a network has, before anything is allocated for it. `names`: the file's, by the network's.

    Raises IncompleteError naming what is missing, what is too much, or the first tensor of another shape.
    """
    scaled = next((name for name in shapes if name.endswith(SCALES)), None)
    if scaled is not None:
        raise IncompleteError(
            path,
            found=f"is a {family} with quantised weights (it has the key '{short(scaled)}')",
            expected="plain weights were expected",
            remedy="choose its float16, bfloat16 or plain float8 version",
        )
    missing = [name for name in expected if name not in shapes]
    surplus = [name for name in shapes if name not in expected]
    names = names or {}
    surplus = [names.get(name, name) for name in surplus]
    if missing:
        shown = [in_file(name, names) for name in missing[:FIRST_NAMES]]
        raise incomplete(path, family, shown + missing[FIRST_NAMES:], surplus)
    wrong = next((name for name in expected if shapes[name] != expected[name]), None)
    if wrong is not None:
        raise IncompleteError(
            path,
            found=f"is a {family} whose tensor '{short(names.get(wrong, wrong))}' has the shape {list(shapes[wrong])}",
            expected=f"{list(expected[wrong])} follows from its other tensors",
            remedy="download it again, or ask its author for a file of the ordinary architecture",
        )
    if surplus:
        raise IncompleteError(
            path,
            found=f"is a {family} with tensors too many, {quoted(surplus)}",
            expected="exactly the tensors of such a network were expected, since the others would change the picture",
            remedy="use the node that its author made for it",
        )


def incomplete(path: Path, family: str, missing: Iterable[str], surplus: Iterable[str]) -> IncompleteError:
    """The error for a file that is nearly of a family."""
    missing, surplus = list(missing), list(surplus)
    unexpected = f" and has {quoted(surplus)} instead" if surplus else ""
    return IncompleteError(
        path,
        found=f"looks like a {family} and lacks {quoted(missing)}{unexpected}",
        expected=f"all tensors of a {family} were expected",
        remedy="download it again, or use the node that its author made for it",
    )


def in_file(name: str, names: Mapping[str, str]) -> str:
    """The file's name for a tensor of the network; of one that it lacks, by what its nearest neighbour is called there."""
    if name in names or not names:
        return names.get(name, name)
    near = max(names, key=lambda other: _shared(name, other))
    ours, theirs = near.split("."), names[near].split(".")
    while ours and theirs and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    module = ".".join(ours)
    return ".".join(theirs) + name[len(module) :] if module and theirs and name.startswith(f"{module}.") else name


def quoted(names: list[str]) -> str:
    """The first few names, each in quotes, and how many more there are."""
    shown = ", ".join(f"'{short(name)}'" for name in names[:FIRST_NAMES])
    rest = len(names) - FIRST_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown


def _shared(one: str, other: str) -> int:
    """How many parts two names begin with alike."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _at(shapes: Mapping[str, Shape], name: str, dimensions: int) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions:
        raise MissingNameError(name)
    return shape


def _depth(shapes: Mapping[str, Shape], attention: str) -> int:
    if f"{attention}.proj_in.weight" not in shapes:
        return NO_ATTENTION
    depth = 0
    while f"{attention}.transformer_blocks.{depth}.norm1.weight" in shapes:
        depth += 1
    return depth
