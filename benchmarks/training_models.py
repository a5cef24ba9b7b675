"""What diffusers' training script reads: a folder of random weights of a width, and one of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

# The same UNets as benchmarks/widths.py and the demo world's, in diffusers' words, where "attention_head_dim" is the number of heads.
UNETS: dict[str, dict[str, Any]] = {
    "demo": {
        "block_out_channels": (64, 64, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 1,
        "cross_attention_dim": 64,
    },
    "narrow": {"block_out_channels": (32, 64, 128, 128), "attention_head_dim": 8, "cross_attention_dim": 24},
    "half": {"block_out_channels": (160, 320, 640, 640), "attention_head_dim": 8, "cross_attention_dim": 768},
    "sd15": {"attention_head_dim": 8, "cross_attention_dim": 768},
}
SMALL_VAE = {"block_out_channels": (16, 16, 16, 16), "norm_num_groups": 8}
VAES: dict[str, dict[str, Any]] = {
    "demo": SMALL_VAE,
    "narrow": SMALL_VAE,
    "half": SMALL_VAE,
    "sd15": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
}
PICTURES = 64


def write_models(folder: Path, width: str, tokens: int) -> None:
    """UNet, autoencoder, text encoder, tokenizer and schedule as `from_pretrained` reads them."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(**UNETS[width])
    unet.save_pretrained(folder / "unet")
    four = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    diffusers.AutoencoderKL(latent_channels=4, **four, **VAES[width]).save_pretrained(folder / "vae")
    wide = UNETS[width]["cross_attention_dim"]
    text = transformers.CLIPTextConfig(
        vocab_size=514 if width != "sd15" else 49408,
        hidden_size=wide,
        intermediate_size=4 * wide,
        num_hidden_layers=2 if width != "sd15" else 12,
        num_attention_heads=12 if wide == 768 else 2,
        max_position_embeddings=tokens,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    transformers.CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer", tokens)
    diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    ).save_pretrained(folder / "scheduler")


def write_tokenizer(folder: Path, tokens: int) -> None:
    """CLIP's, without any merges: letters are words."""
    letters = [*transformers.convert_slow_tokenizer.bytes_to_unicode().values()]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokens,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_pictures(folder: Path, pixels: int) -> None:
    """Random pictures of the size that is trained, their conditions and captions, as the folder of pictures of Hugging Face's datasets."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []
    for index in range(PICTURES):
        names = [f"{kind}{index}.png" for kind in ("picture", "hint")]
        for name in names:
            Image.fromarray(generator.integers(256, size=(pixels, pixels, 3), dtype=np.uint8)).save(folder / name)
        row = {"file_name": names[0], "conditioning_image_file_name": names[1], "text": f"picture {index}"}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
