"""Residuals: what a control adds to the UNet, one per block, and the weights that shape them. Pure torch, no ComfyUI."""

from .accumulator import Accumulator
from .block_values import ListedWeights, NamedWeights, parse_block_values
from .blocks import Block, Layout, Place
from .moments import Axis, Moment, Moments
from .presets import PRESETS, Preset
from .residuals import Residuals, ResidualShapeError
from .schedule_images import ImageStrengths, NamedStrengths
from .schedule_text import parse_schedule, parse_strengths
from .schedules import CurveSchedule, Keyframe, Keyframes, ListSchedule, Schedule, ScheduleError
from .weights import BlockWeights, BlockWeightsError, Flat, LevelWeights, Product, ResolutionWeights, SoftWeights

__all__ = [
    "PRESETS",
    "Accumulator",
    "Axis",
    "Block",
    "BlockWeights",
    "BlockWeightsError",
    "CurveSchedule",
    "Flat",
    "ImageStrengths",
    "Keyframe",
    "Keyframes",
    "Layout",
    "LevelWeights",
    "ListSchedule",
    "ListedWeights",
    "Moment",
    "Moments",
    "NamedStrengths",
    "NamedWeights",
    "Place",
    "Preset",
    "Product",
    "ResidualShapeError",
    "Residuals",
    "ResolutionWeights",
    "Schedule",
    "ScheduleError",
    "SoftWeights",
    "parse_block_values",
    "parse_schedule",
    "parse_strengths",
]
