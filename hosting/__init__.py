"""What `host.py` is made of. Standard library only; no part of the pack that ComfyUI loads imports it."""
