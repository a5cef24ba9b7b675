"""The example workflow that wants files which are not here: all but those files is as the host expects it."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

NAME = "native_preprocessors"
WORKFLOW = json.loads(
    (Path(__file__).resolve().parents[2] / "example_workflows" / f"{NAME}.json").read_text(encoding="utf-8")
)


def test_only_the_files_are_missing(server: Any) -> None:
    prompt = server.example(NAME)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        server.post("/prompt", {"prompt": prompt})
    refused = json.loads(refusal.value.read())["node_errors"]
    complaints = {
        (prompt[node]["class_type"], complaint["extra_info"].get("input_name", "image"))
        for node, found in refused.items()
        for complaint in found["errors"]
    }
    assert complaints == {
        ("LoadImage", "image"),
        ("LoadMoGeModel", "model_name"),
        ("CheckpointLoaderSimple", "ckpt_name"),
        ("ControlComposerLoad", "control_net_name"),
    }


def test_its_links_join_what_the_nodes_have(server: Any) -> None:
    info = server.object_info()
    nodes = {node["id"]: node for node in WORKFLOW["nodes"]}
    for _, source, slot, target, place, kind in WORKFLOW["links"]:
        given = info[nodes[source]["type"]]["output"][slot]
        socket = nodes[target]["inputs"][place]
        assert kind == given == nodes[source]["outputs"][slot]["type"]
        assert given in socket["type"].split(",")
        inputs = info[nodes[target]["type"]]["input"]
        declared = {**inputs["required"], **inputs.get("optional", {})}
        if "." not in socket["name"]:  # those that grow are not listed one by one
            assert given in declared[socket["name"]][0].split(",")
