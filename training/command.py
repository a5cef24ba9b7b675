"""A training from a file, in one process or in several that accelerate started (host side)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from comfy.model_management import unload_all_models
from torch import Tensor, nn

from ..preprocessors import PREPROCESSORS
from .bases import Base, load_base
from .cache import Cache
from .config import Config, DatasetConfig
from .copy import encoder_of, heads_of, trainable_copy
from .dataset.condition import condition_from
from .dataset.dataset import ConditionDataset
from .dataset.sources import from_folder, from_jsonl, from_shards, is_shards
from .encode import encode, schedule_of
from .errors import TrainingError
from .export import export
from .frozen import frozen_unet
from .loop import Trained, train
from .losses import StepLog
from .objective import Schedule
from .stop import StopSignal
from .validation import Validation, decoder, spread

log = logging.getLogger("control_composer.training")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MESSAGE_EVERY = 100
"""Rows of preparation between two lines of the log."""


class StoppedError(Exception):
    """A signal came while the data was prepared."""


def run(config: Config, accelerator: Any, stop: StopSignal) -> Trained:
    """Prepares the data where that is asked for, trains, and saves the control once all steps are done.

    Raises TrainingError for whatever does not fit, StoppedError where `stop` was set before the first step.
    """
    base = load_base(config.base)
    data = _data(config, base, accelerator, stop)
    # From here on the device is for training; only the VAE is called again.
    base = replace(base, text=None)
    unload_all_models()
    unet: Any = frozen_unet(base.model, DTYPES[config.settings.precision], accelerator.device)
    check(data, unet, config)
    control = trainable_copy(
        unet, config.copy.hint_channels, config.copy.start, config.copy.form, seed=config.copy.seed
    )
    schedule = schedule_of(base.model)
    trained = train(
        unet,
        control,
        data,
        schedule,
        config.settings,
        config.folder,
        accelerator=accelerator,
        on_step=lambda row: log.info("%s", told(row, config.settings.steps)),
        on_validate=_validation(config, base, data, unet, schedule, stop, accelerator.is_main_process),
        should_stop=stop,
    )
    if trained.step < config.settings.steps:
        log.info(
            "stopped after %d of %d steps; the same command goes on from there", trained.step, config.settings.steps
        )
    elif config.save is not None and accelerator.is_main_process:
        log.info("saved %s", _save(config, base, data, unet, trained.average))
    return trained


def told(row: StepLog, steps: int) -> str:
    return f"step {row.step} of {steps}: loss {row.loss:.5f}, rate {row.rate:.3g}, {row.rows_per_second:.3g} rows/s"


def _data(config: Config, base: Base, accelerator: Any, stop: StopSignal) -> Cache:
    if config.dataset is None:
        return Cache.open(config.cache)
    if base.vae is None or base.text is None:
        raise TrainingError(
            f"The base '{config.base}'",
            found="has no VAE or no text encoder",
            expected="both were expected, to prepare the data",
            remedy="use a whole checkpoint file",
        )
    first = accelerator.is_main_process
    dataset = _dataset(config.dataset)

    def on_row(done: int) -> None:
        if stop():
            raise StoppedError
        if first and done % MESSAGE_EVERY == 0:
            log.info("prepared %d rows of this process's share", done)

    cache = encode(
        dataset,
        base.vae,
        base.text,
        base.model,
        config.cache,
        on_row=on_row,
        share=(accelerator.process_index, accelerator.num_processes),
        wait=accelerator.wait_for_everyone,
    )
    if first:
        log.info("%d rows are prepared, %d are left out", len(cache), len(cache.problems) + len(dataset.problems))
        for problem in [*(f"'{one.name}' {one.what}" for one in dataset.problems), *cache.problems]:
            log.warning("left out: %s", problem)
    return cache


def _dataset(config: DatasetConfig) -> ConditionDataset:
    if config.path.is_file():
        found = from_jsonl(config.path)
    else:
        found = from_shards(config.path) if is_shards(config.path) else from_folder(config.path, config.hints)
    return ConditionDataset(found, config.settings)


def check(data: Cache, unet: Any, config: Config) -> None:
    """Raises TrainingError for rows that were prepared for another base, which would fail deep inside, or for other hints."""
    net = encoder_of(unet, config.copy.hint_channels)
    batch = data.batch(torch.zeros(1, dtype=torch.int64))
    widths = {
        "texts": (batch.context.shape[2], net.context_dim),
        "vectors beside the texts": (0 if batch.y is None else batch.y.shape[1], net.adm_in_channels or 0),
    }
    for what, (there, reads) in widths.items():
        if there != reads:
            raise TrainingError(
                f"The cache '{config.cache}'",
                found=f"has {what} of width {there}",
                expected=f"{reads} was expected, which the base reads",
                remedy="prepare it for this base, in another folder",
            )
    if batch.hint.shape[1] != config.copy.hint_channels:
        raise TrainingError(
            f"The cache '{config.cache}'",
            found=f"has hints of {batch.hint.shape[1]} channels",
            expected=f"{config.copy.hint_channels} were expected, as 'hint_channels' says",
            remedy=f"set 'hint_channels' to {batch.hint.shape[1]}",
        )


def _validation(
    config: Config, base: Base, data: Cache, unet: Any, schedule: Schedule, stop: StopSignal, first: bool
) -> Callable[[int, nn.Module], None] | None:
    if config.validation.rows == 0 or base.vae is None:
        return None
    if not first:
        return lambda step, control: None
    validation = Validation(
        data,
        spread(len(data), config.validation.rows),
        unet,
        schedule,
        decoder(base.vae, base.model.model),
        config.folder,
        _condition(config, data),
        _annotate(config, data, next(unet.parameters()).device),
        config.validation.seed,
        config.validation.steps,
        config.validation.guidance,
        stop,
    )

    def draw(step: int, control: nn.Module) -> None:
        drawn = validation(step, control)
        if drawn is not None and drawn.score is not None:
            log.info("validation at step %d: %s %.4g", step, drawn.measure, drawn.score)

    return draw


def _condition(config: Config, data: Cache) -> str:
    return config.validation.condition or data.condition


def _annotate(config: Config, data: Cache, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """The preprocessor that made the hints. None where it is not known, and where its networks' files are not."""
    asked = config.validation
    if asked.condition:
        return condition_from(asked.condition, asked.parameters, annotators=asked.annotators, device=device).annotate
    made = next((one for one in PREPROCESSORS if one.id == data.condition), None)
    if made is None or (made.needed(data.parameters) and asked.annotators is None):
        return None
    return condition_from(made.id, data.parameters, annotators=asked.annotators, device=device).annotate


def _save(config: Config, base: Base, data: Cache, unet: Any, weights: dict[str, Tensor]) -> str:
    assert config.save is not None
    about = {
        "base": base.name,
        "condition": _condition(config, data),
        "steps": str(config.settings.steps),
    } | config.about
    file = export(
        config.save,
        weights,
        encoder_of(unet, config.copy.hint_channels),
        heads_of(unet),
        layout=config.layout,
        dtype=DTYPES[config.dtype],
        about={word: text for word, text in about.items() if text},
    )
    return str(file)
