"""Where a command of the pack computes. The host itself has long decided that when it imports a pack; a command has to say it first."""

from __future__ import annotations

import sys

import comfy.cli_args
import torch

if "comfy.model_management" not in sys.modules and not getattr(torch, "accelerator", torch.cuda).is_available():
    # Without being told so the host looks for CUDA on import, and fails where there is none.
    comfy.cli_args.args.cpu = True
