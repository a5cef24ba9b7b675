"""From the page's workflow to the server's prompt, on small graphs made here."""

from typing import Any

import pytest

from control_composer.demo.graph import GraphError, prompt_from_workflow

INFO: dict[str, Any] = {
    "Loader": {"input": {"required": {"name": [["a.safetensors", "b.safetensors"], {}]}}, "display_name": "Load It"},
    "Number": {"input": {"required": {"value": ["INT", {"default": 1}]}}},
    "Picture": {"input": {"required": {"image": ["COMBO", {"options": ["x.png"], "image_upload": True}]}}},
    "Filter": {"input": {"required": {"image": ["IMAGE"], "model": ["MODEL"], "amount": ["FLOAT", {}]}}},
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL", {"tooltip": "..."}],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "sampler_name": [["euler", "heun"]],
            },
            "optional": {
                "image": ["IMAGE"],
                "note": ["STRING", {"multiline": True}],
                "forced": ["INT", {"forceInput": True}],
            },
        },
        # The page goes by this order, not by that of the dictionary.
        "input_order": {
            "required": ["model", "seed", "steps", "sampler_name"],
            "optional": ["note", "image", "forced"],
        },
    },
    "OldSampler": {"input": {"required": {"noise_seed": ["INT", {}], "cfg": ["FLOAT", {}]}}},
    "FixedSeed": {"input": {"required": {"seed": ["INT", {"control_after_generate": False}], "cfg": ["FLOAT", {}]}}},
    "Many": {"input": {"required": {"choices": ["COMBO", {"options": ["a", "b"], "multiselect": True}]}}},
    "Growing": {
        "input": {
            "required": {"images": ["COMFY_AUTOGROW_V3", {"template": {"prefix": "image"}}], "amount": ["FLOAT", {}]}
        }
    },
    "Changing": {
        "input": {
            "required": {
                "choice": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "none", "inputs": {}},
                            {
                                "key": "two",
                                "inputs": {
                                    "required": {"low": ["INT", {}], "image": ["IMAGE", {}], "seed": ["INT", {}]},
                                    "optional": {"high": ["FLOAT", {}]},
                                },
                            },
                            {
                                "key": "nested",
                                "inputs": {
                                    "required": {
                                        "inner": [
                                            "COMFY_DYNAMICCOMBO_V3",
                                            {"options": [{"key": "in", "inputs": {"required": {"low": ["INT", {}]}}}]},
                                        ]
                                    }
                                },
                            },
                        ]
                    },
                ],
                "amount": ["FLOAT", {}],
            }
        }
    },
    "Slotted": {"input": {"required": {"choice": ["COMFY_DYNAMICSLOT_V3", {}]}}},
}


def node(number: int, kind: str, values: Any = None, mode: int = 0, title: str | None = None, **inputs: Any) -> Any:
    made: dict[str, Any] = {"id": number, "type": kind, "mode": mode}
    if values is not None:
        made["widgets_values"] = values
    if title:
        made["title"] = title
    made["inputs"] = [{"name": name, "type": type_, "link": link} for name, (type_, link) in inputs.items()]
    return made


def workflow(*nodes: Any, links: tuple[tuple[int, int, int, int, int, str], ...] = ()) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4}


SAMPLER_VALUES = [42, "randomize", 8, "heun", "words"]


def test_widgets_in_order_and_the_choice_after_a_seed_is_no_input() -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Loader", ["b.safetensors"]),
            node(2, "Sampler", SAMPLER_VALUES, model=("MODEL", 1)),
            links=((1, 1, 0, 2, 0, "MODEL"),),
        ),
        INFO,
    )
    assert prompt["1"] == {"class_type": "Loader", "inputs": {"name": "b.safetensors"}, "_meta": {"title": "Load It"}}
    assert prompt["2"]["inputs"] == {
        "model": ["1", 0],
        "seed": 42,
        "steps": 8,
        "sampler_name": "heun",
        "note": "words",
    }


def test_seeds_are_recognised_by_name_unless_told_otherwise() -> None:
    prompt = prompt_from_workflow(
        workflow(node(1, "OldSampler", [7, "fixed", 2.5]), node(2, "FixedSeed", [7, 2.5])), INFO
    )
    assert prompt["1"]["inputs"] == {"noise_seed": 7, "cfg": 2.5}
    assert prompt["2"]["inputs"] == {"seed": 7, "cfg": 2.5}


def test_the_upload_button_is_no_input_and_lists_are_not_links() -> None:
    prompt = prompt_from_workflow(workflow(node(1, "Picture", ["x.png", "image"]), node(2, "Many", [["a", "b"]])), INFO)
    assert prompt["1"]["inputs"] == {"image": "x.png"}
    assert prompt["2"]["inputs"] == {"choices": {"__value__": ["a", "b"]}}


def test_a_widget_turned_into_an_input_takes_the_link() -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Number", [30]),
            node(2, "Sampler", SAMPLER_VALUES, steps=("INT", 1)),
            links=((1, 1, 0, 2, 1, "INT"),),
        ),
        INFO,
    )
    assert prompt["2"]["inputs"]["steps"] == ["1", 0]
    assert prompt["2"]["inputs"]["sampler_name"] == "heun"


def test_notes_stay_out() -> None:
    assert set(
        prompt_from_workflow(
            workflow(node(1, "Note", ["hello"]), node(2, "MarkdownNote", ["# hi"]), node(3, "Number", [1])), INFO
        )
    ) == {"3"}


def test_muted_nodes_and_their_links_are_left_out() -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Loader", ["a.safetensors"], mode=2),
            node(2, "Sampler", SAMPLER_VALUES, model=("MODEL", 1)),
            links=((1, 1, 0, 2, 0, "MODEL"),),
        ),
        INFO,
    )
    assert set(prompt) == {"2"}
    assert "model" not in prompt["2"]["inputs"]


@pytest.mark.parametrize(("kind", "passed"), [("IMAGE", "3"), ("MODEL", "1")])
def test_links_go_through_bypassed_nodes_by_type(kind: str, passed: str) -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Loader", ["a.safetensors"]),
            node(3, "Picture", ["x.png", "image"]),
            node(4, "Filter", [0.5], mode=4, model=("MODEL", 1), image=("IMAGE", 2)),
            node(5, "Sampler", SAMPLER_VALUES, **{kind.lower(): (kind, 3)}),
            links=((1, 1, 0, 4, 0, "MODEL"), (2, 3, 0, 4, 1, "IMAGE"), (3, 4, 0, 5, 0, kind)),
        ),
        INFO,
    )
    assert set(prompt) == {"1", "3", "5"}
    assert prompt["5"]["inputs"][kind.lower()] == [passed, 0]


def test_nothing_passes_a_bypassed_node_without_an_input_of_that_type() -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(4, "Number", [3], mode=4),
            node(5, "Sampler", SAMPLER_VALUES, forced=("INT", 1)),
            links=((1, 4, 0, 5, 0, "INT"),),
        ),
        INFO,
    )
    assert "forced" not in prompt["5"]["inputs"]


def test_reroutes_and_primitives_are_resolved() -> None:
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Loader", ["a.safetensors"]),
            node(2, "Reroute", **{"": ("*", 1)}),
            node(3, "Reroute", **{"": ("*", 2)}),
            node(4, "PrimitiveNode", [99, "fixed"]),
            node(5, "Sampler", SAMPLER_VALUES, model=("MODEL", 3), steps=("INT", 4)),
            links=((1, 1, 0, 2, 0, "*"), (2, 2, 0, 3, 0, "*"), (3, 3, 0, 5, 0, "MODEL"), (4, 4, 0, 5, 1, "INT")),
        ),
        INFO,
    )
    assert set(prompt) == {"1", "5"}
    assert prompt["5"]["inputs"]["model"] == ["1", 0]
    assert prompt["5"]["inputs"]["steps"] == 99


def test_growing_inputs_are_sockets_under_the_names_that_the_server_reads() -> None:
    sockets = {"images.image0": ("IMAGE", 1), "images.image1": ("IMAGE", 2), "images.image2": ("IMAGE", None)}
    prompt = prompt_from_workflow(
        workflow(
            node(1, "Picture", ["x.png", "image"]),
            node(2, "Growing", [0.5], **sockets),
            links=((1, 1, 0, 2, 0, "IMAGE"), (2, 1, 0, 2, 1, "IMAGE")),
        ),
        INFO,
    )
    assert prompt["2"]["inputs"] == {"amount": 0.5, "images.image0": ["1", 0], "images.image1": ["1", 0]}


@pytest.mark.parametrize(
    ("values", "inputs"),
    [
        (["none", 0.5], {"choice": "none", "amount": 0.5}),
        (
            ["two", 3, 7, "fixed", 0.25, 0.5],
            {"choice": "two", "choice.low": 3, "choice.seed": 7, "choice.high": 0.25, "amount": 0.5},
        ),
        (["nested", "in", 3, 0.5], {"choice": "nested", "choice.inner": "in", "choice.inner.low": 3, "amount": 0.5}),
    ],
    ids=["nothing", "inputs", "a choice in a choice"],
)
def test_the_inputs_of_a_choice_come_right_after_it(values: list[Any], inputs: dict[str, Any]) -> None:
    """As the page saves and names them."""
    assert prompt_from_workflow(workflow(node(1, "Changing", values)), INFO)["1"]["inputs"] == inputs


def test_an_optional_widget_that_the_workflow_does_not_know_keeps_the_servers_default() -> None:
    prompt = prompt_from_workflow(workflow(node(2, "Sampler", SAMPLER_VALUES[:-1])), INFO)
    assert prompt["2"]["inputs"] == {"seed": 42, "steps": 8, "sampler_name": "heun"}


def test_the_title_is_the_persons() -> None:
    assert prompt_from_workflow(workflow(node(1, "Number", [1], title="Seven")), INFO)["1"]["_meta"]["title"] == "Seven"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            workflow(node(8, "Absent", [])),
            'node 8 "Absent": found the node type Absent, but a node that the server has was expected; '
            "install or update the pack it comes from.",
        ),
        (
            workflow(node(3, "Sampler", [1, "fixed", 20])),
            'node 3 "Sampler": found 3 saved widget values, but one for sampler_name was expected too; '
            "the node has changed since the workflow was saved: open it in the page and save it again.",
        ),
        (
            workflow(node(3, "Loader", ["a", "b"], title="My loader")),
            'node 3 "My loader": found 2 saved widget values, but 1 were expected; '
            "the node has changed since the workflow was saved: open it in the page and save it again.",
        ),
        (
            workflow(node(2, "Slotted", [])),
            'node 2 "Slotted": found the dynamic input choice (COMFY_DYNAMICSLOT_V3), but plain inputs were expected; '
            "use a node without it in a workflow that is run from the command line.",
        ),
        (
            workflow(node(2, "Changing", ["three", 0.5])),
            "node 2 \"Changing\": found the choice 'three' for choice, but one of none, two, nested was expected; "
            "the node has changed since the workflow was saved: open it in the page and choose anew.",
        ),
        (
            workflow() | {"definitions": {"subgraphs": [{"id": "x"}]}},
            "workflow: found subgraphs, but plain nodes were expected; unpack them in the page and save it again.",
        ),
    ],
    ids=["unknown node", "too few values", "too many values", "dynamic input", "unknown choice", "subgraph"],
)
def test_what_cannot_be_converted_says_why(graph: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as refusal:
        prompt_from_workflow(graph, INFO)
    assert str(refusal.value) == message
