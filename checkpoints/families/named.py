"""Files that are known by name and not loaded by this pack: what each is, and where it belongs.

Sources: ComfyUI's `comfy/controlnet.py`, ComfyUI-Advanced-ControlNet, sd-webui-controlnet and the repositories of each family.
"""

from __future__ import annotations

from ..condition import AllOf, AnyOf, Containing, Key, NoneOf, Starting
from ..family import LOAD_A_CONTROL, Family
from .host import HOST_CONTROLS, MODEL_PATCHES

ADVANCED = "load it with the pack ComfyUI-Advanced-ControlNet, whose output our Apply node takes as well"
ITS_OWN = "use the nodes made for this family, or choose a ControlNet file here"

ANNOTATOR = "leave it to the preprocessor nodes, which make hints with it, and choose a ControlNet file here"
# What lies beside controls in lllyasviel/Annotators and its kin, by the names of the classes that read it.
ANNOTATORS = {
    "HED soft edges": AllOf("block1.convs.0.weight", "block1.projection.weight"),
    "PiDiNet soft edges": AllOf("init_block.weight", "conv_reduces.0.conv.weight"),
    "OpenPose": Containing("conv1_stage2"),
    "Depth Anything": AllOf(Starting("pretrained."), Starting("depth_head.")),
    "MiDaS or ZoeDepth": Containing("scratch.refinenet4."),
    "line art": AllOf("model0.1.weight", "model4.1.weight"),
    "M-LSD lines": AllOf(Starting("backbone.features."), Starting("block15.")),
    "normal map (BAE)": Containing("encoder.original_model."),
    "segmentation": Containing("decode_head."),
    "Segment Anything": AllOf(Starting("image_encoder."), Starting("mask_decoder.")),
}

# Controls that other loaders know. Order matters where one family's keys are among another's.
CONTROLS = (
    *MODEL_PATCHES,
    Family(
        "an SVD ControlNet",
        AllOf(Containing("temporal_res_block"), Containing("controlnet_")),
        ADVANCED,
    ),
)

# Controls whose keys share nothing with ControlNet's.
OTHER_CONTROLS = (
    Family("a T2I style adapter", Key("style_embedding"), "load it with the stock node 'Load Style Model'"),
    Family("a CoAdapter fuser", AllOf(Starting("task_embedding"), NoneOf(Starting("control_add_embedding."))), ITS_OWN),
    Family(
        "a control for a transformer model that the host does not know",
        AllOf(Starting("controlnet_blocks."), NoneOf(*(loaded.condition for loaded in HOST_CONTROLS))),
        ITS_OWN,
    ),
)

# No control at all.
OTHER_FILES = (
    Family(
        "an IP-Adapter, or InstantID's part of that kind",
        AnyOf(Starting("ip_adapter."), Starting("image_proj.")),
        "load it with an IP-Adapter node, or choose a ControlNet file here",
    ),
    Family("a PhotoMaker", Starting("id_encoder."), "load it with the stock node 'Load PhotoMaker Model'"),
    Family("a GLIGEN model", Containing(".fuser.linear.weight"), "load it with the stock node 'GLIGENLoader'"),
    Family(
        "a LoRA",
        AnyOf(
            Starting("lora_unet_"),
            Starting("lora_te"),
            Starting("lora_transformer_"),
            Containing(".lora_linear_layer."),
            Starting("lycoris_"),
            Containing(".lora_down."),
            Containing(".lora_up."),
            Containing(".lora_A."),
            Containing(".lora_B."),
            Containing("_lora.down."),
            Containing(".lora.down."),
            AllOf(Containing(".lora_layer."), NoneOf(Starting("input_blocks."), Starting("zero_convs."))),
            Containing(".hada_w1_a"),
            Containing(".lokr_w1"),
            Containing(".oft_blocks"),
        ),
        "load it with the stock node 'Load LoRA' and choose a ControlNet file here",
    ),
    Family(
        "a full checkpoint (model, text encoder and VAE) without a control in it",
        AllOf(Starting("model.diffusion_model."), AnyOf(Starting("first_stage_model."), Starting("vae."))),
        "load it with the stock node 'Load Checkpoint' and choose a ControlNet file here",
    ),
    Family(
        "an AnimateDiff motion module",
        AllOf(Containing("motion_modules"), NoneOf(Containing("controlnet_"))),
        "load it with an AnimateDiff node",
    ),
    Family(
        "a diffusion model without a control in it",
        AllOf(
            NoneOf(Starting("controlnet_blocks.")),
            AnyOf(
                Starting("model.diffusion_model."),
                AllOf(Starting("input_blocks."), Starting("output_blocks.")),
                AllOf(Starting("down_blocks."), Starting("up_blocks.")),
                AnyOf(Starting("double_blocks."), Starting("joint_blocks."), Starting("joint_transformer_blocks.")),
                AllOf(Starting("transformer_blocks."), AnyOf("proj_out.weight", "x_embedder.weight", "img_in.weight")),
                AllOf("patch_embedding.weight", Starting("blocks.0.self_attn.")),
            ),
        ),
        "load it with the stock node 'Load Diffusion Model' and choose a ControlNet file here",
    ),
    Family(
        "a VAE",
        AnyOf(
            AllOf("encoder.conv_in.weight", "decoder.conv_in.weight"),
            Starting("first_stage_model."),
            AllOf("decoder.conv_in.weight", "post_quant_conv.weight"),
            AllOf(Starting("taesd_encoder."), Starting("taesd_decoder.")),
            # TAESD: plain numbered layers.
            AllOf("1.weight", "3.conv.0.weight"),
        ),
        "load it with the stock node 'Load VAE' and choose a ControlNet file here",
    ),
    Family(
        "a vision encoder (CLIP vision)",
        AnyOf(Starting("vision_model."), Starting("visual.transformer.")),
        "load it with the stock node 'Load CLIP Vision' and choose a ControlNet file here",
    ),
    Family(
        "a text encoder",
        AnyOf(
            Starting("text_model."),
            Starting("cond_stage_model."),
            Starting("transformer.resblocks."),
            Starting("encoder.block.0.layer."),
            Starting("model.layers.0.self_attn."),
        ),
        "load it with the stock node 'Load CLIP' and choose a ControlNet file here",
    ),
    Family(
        "a textual inversion embedding",
        AnyOf("emb_params", "string_to_param", Starting("string_to_param."), "clip_g", "clip_l"),
        "put it into the folder models/embeddings and choose a ControlNet file here",
    ),
    Family(
        "an upscaling network",
        AnyOf(
            "model.0.weight",
            "conv_first.weight",
            "body.0.rdb1.conv1.weight",
            # Real-ESRGAN's compact networks: plain numbered layers.
            AllOf("body.0.weight", "body.1.weight", "body.2.weight"),
        ),
        "load it with the stock node 'Load Upscale Model' and choose a ControlNet file here",
    ),
    *(Family(f"an annotator's network ({what})", condition, ANNOTATOR) for what, condition in ANNOTATORS.items()),
)

__all__ = ["CONTROLS", "LOAD_A_CONTROL", "OTHER_CONTROLS", "OTHER_FILES"]
