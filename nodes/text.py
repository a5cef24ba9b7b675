"""Text that a node shows on itself while a graph runs."""

from __future__ import annotations

from comfy_api.latest import io


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Shows `text` on the running node, whose schema asks for the hidden unique_id; does nothing where no graph runs."""
    unique_id = getattr(node.hidden, "unique_id", None)
    if unique_id is not None:
        from server import PromptServer  # here, because only a running graph has a server

        PromptServer.instance.send_progress_text(text, unique_id)
