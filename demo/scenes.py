"""Scenes of one to three shaded shapes on a ground: the pictures and captions that the demo world is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

SIZE = 128
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = {
    "red": (0.86, 0.12, 0.14),
    "orange": (0.97, 0.55, 0.08),
    "yellow": (0.96, 0.88, 0.16),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.13, 0.27, 0.83),
    "purple": (0.56, 0.20, 0.70),
    "white": (0.95, 0.95, 0.95),
    "black": (0.08, 0.08, 0.09),
}
GROUNDS = ("flat", "graded", "striped")
MOST_SHAPES = 3

Distance = Callable[[Tensor, Tensor], Tensor]

_COLOUR_NAMES = tuple(COLOURS)
# Radii in pixels of a small and a large shape. Three large ones do not fit beside each other, so their number bounds them.
_SMALL = (17.0, 22.0)
_LARGE = (26.0, 36.0)
_LARGEST_RADIUS = (36.0, 29.0, 25.0)
_PLACEMENTS = 24  # random placements tried for each scene; the one with the widest gap is kept
_MARGIN = 5.0


@dataclass(frozen=True)
class Scenes:
    """N scenes as tensors on the CPU; `N x 3` where a scene has a value for each of its (at most three) shapes."""

    count: Tensor  # (N,) 1..3
    shape: Tensor  # (N, 3) index into SHAPES
    colour: Tensor  # (N, 3) index into COLOURS
    large: Tensor  # (N, 3) bool
    says_size: Tensor  # (N, 3) bool, whether the caption tells the size
    radius: Tensor  # (N, 3) pixels
    centre: Tensor  # (N, 3, 2) x, y in pixels
    angle: Tensor  # (N, 3) radians
    light: Tensor  # (N,) radians, where the light comes from
    ground: Tensor  # (N,) index into GROUNDS
    ground_colour: Tensor  # (N,)
    ground_angle: Tensor  # (N,) radians
    ground_period: Tensor  # (N,) pixels between stripes
    tint: Tensor  # (N, 4, 3) small departures from the named colours: three shapes, ground

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: slice | Tensor) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def captions(self) -> list[str]:
        """One sentence a scene, such as "a large red circle and a blue star on a striped green ground"."""
        return [_caption(self, row) for row in range(len(self))]


def sample_scenes(count: int, seed: int) -> Scenes:
    """Draws `count` scenes; the same seed gives the same scenes on every machine."""
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=random)

    number = torch.multinomial(torch.tensor([0.45, 0.35, 0.2]), count, replacement=True, generator=random) + 1
    # A scene never repeats a colour: a permutation deals one to the ground and one to each shape.
    dealt = torch.rand((count, len(COLOURS)), generator=random).argsort(dim=1)
    large = torch.rand((count, MOST_SHAPES), generator=random) < 0.55
    radius = torch.where(large, uniform(*_LARGE, count, MOST_SHAPES), uniform(*_SMALL, count, MOST_SHAPES))
    radius = radius.minimum(torch.tensor(_LARGEST_RADIUS)[number - 1][:, None])
    striped_angles = torch.randint(0, 4, (count,), generator=random) * (math.pi / 4)
    return Scenes(
        count=number,
        shape=torch.randint(0, len(SHAPES), (count, MOST_SHAPES), generator=random),
        colour=dealt[:, 1 : 1 + MOST_SHAPES],
        large=large,
        says_size=torch.rand((count, MOST_SHAPES), generator=random) < 0.5,
        radius=radius,
        centre=_place(number, radius, random),
        angle=uniform(-0.4, 0.4, count, MOST_SHAPES),
        light=uniform(0, 2 * math.pi, count),
        ground=torch.randint(0, len(GROUNDS), (count,), generator=random),
        ground_colour=dealt[:, 0],
        ground_angle=striped_angles,
        ground_period=uniform(22, 40, count),
        tint=uniform(-0.035, 0.035, count, MOST_SHAPES + 1, 3),
    )


def render(scenes: Scenes, device: torch.device | str = "cpu") -> Tensor:
    """Draws the scenes: float32 (N, 128, 128, 3), RGB in 0..1, antialiased over one pixel."""
    s = Scenes(**{field.name: getattr(scenes, field.name).to(device) for field in fields(scenes)})
    palette = torch.tensor(list(COLOURS.values()), device=device)
    axis = torch.arange(SIZE, device=device, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    picture = _ground(s, palette, x, y)
    for i in range(MOST_SHAPES):
        for kind, distance in enumerate(_DISTANCES):
            rows = ((s.shape[:, i] == kind) & (s.count > i)).nonzero()[:, 0]
            if len(rows):
                picture[rows] = _draw(picture[rows], s[rows], i, distance, palette, x, y)
    return picture.clamp(0, 1)


def _draw(picture: Tensor, s: Scenes, i: int, distance: Distance, palette: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pictures with their i-th shapes, all of one kind, drawn over them."""
    radius, angle, light = s.radius[:, i, None, None], s.angle[:, i, None, None], s.light[:, None, None]
    dx, dy = (x - s.centre[:, i, 0, None, None]) / radius, (y - s.centre[:, i, 1, None, None]) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    cover = (0.5 - radius * distance(cos * dx + sin * dy, cos * dy - sin * dx)).clamp(0, 1)
    shade = 0.88 + 0.2 * (torch.cos(light) * dx + torch.sin(light) * dy)
    colour = (palette[s.colour[:, i]] + s.tint[:, i])[:, None, None] * shade[..., None]
    return picture + cover[..., None] * (colour - picture)


def _ground(s: Scenes, palette: Tensor, x: Tensor, y: Tensor) -> Tensor:
    colour = 0.12 + 0.76 * palette[s.ground_colour] + s.tint[:, MOST_SHAPES]  # grounds are paler than shapes
    cos, sin = torch.cos(s.ground_angle)[:, None, None], torch.sin(s.ground_angle)[:, None, None]
    along = cos * (x - SIZE / 2) + sin * (y - SIZE / 2)
    graded = 1 + 0.45 * along / SIZE
    # Sine stripes of this depth are seen, but too soft for Canny at 100/200: a hint shows shapes only.
    striped = 0.94 + 0.13 * torch.sin(2 * math.pi * along / s.ground_period[:, None, None])
    kind = s.ground[:, None, None]
    level = torch.where(kind == 0, torch.ones_like(graded), torch.where(kind == 1, graded, striped))
    return colour[:, None, None] * level[..., None]


# Signed distances (about; negative inside) to shapes of radius 1 at points x, y.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.85


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs() * (math.sqrt(3) / 2) + y / 2, -y) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points: the plane is folded into one tenth, where the outline is one straight edge from tip to notch."""
    tenth = math.pi / 5
    folded = (torch.remainder(torch.atan2(x, -y) + tenth, 2 * tenth) - tenth).abs()
    length = torch.hypot(x, y)
    px, py = length * torch.sin(folded), length * torch.cos(folded)
    tip, notch = (0.0, 1.1), (0.52 * math.sin(tenth), 0.52 * math.cos(tenth))
    edge_x, edge_y = notch[0] - tip[0], notch[1] - tip[1]
    return ((px - tip[0]) * -edge_y + (py - tip[1]) * edge_x) / math.hypot(edge_x, edge_y)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.74).abs() - 0.26


def _cross(x: Tensor, y: Tensor) -> Tensor:
    ax, ay = x.abs(), y.abs()
    return torch.minimum(torch.maximum(ax - 0.95, ay - 0.34), torch.maximum(ax - 0.34, ay - 0.95))


_DISTANCES: tuple[Distance, ...] = (_circle, _square, _triangle, _star, _ring, _cross)  # in the order of SHAPES


def _place(number: Tensor, radius: Tensor, random: torch.Generator) -> Tensor:
    """Centres (N, 3, 2): of several random placements the one whose shapes keep the widest gap."""
    room = (radius + _MARGIN)[:, None, :, None]
    tries = torch.rand((len(number), _PLACEMENTS, MOST_SHAPES, 2), generator=random)
    centres = room + tries * (SIZE - 2 * room)
    gap = torch.full((len(number), _PLACEMENTS), 1e9)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        apart = (centres[:, :, i] - centres[:, :, j]).norm(dim=-1) - (radius[:, i] + radius[:, j])[:, None]
        gap = torch.where((number > j)[:, None], gap.minimum(apart), gap)
    # Any placement with enough room will do; always the widest would push shapes into the corners.
    best = torch.where((gap > 6).any(dim=1), (gap > 6).float().argmax(dim=1), gap.argmax(dim=1))
    return centres[torch.arange(len(number)), best]


def _caption(s: Scenes, row: int) -> str:
    things = []
    for i in range(int(s.count[row])):
        size = ("large", "small")[int(not s.large[row, i])] if s.says_size[row, i] else ""
        things.append(_phrase(size, _COLOUR_NAMES[int(s.colour[row, i])], SHAPES[int(s.shape[row, i])]))
    kind = GROUNDS[int(s.ground[row])]
    ground = _phrase("" if kind == "flat" else kind, _COLOUR_NAMES[int(s.ground_colour[row])], "ground")
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    return f"{listed} on {ground}"


def _phrase(*words: str) -> str:
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
