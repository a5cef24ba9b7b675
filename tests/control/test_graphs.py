"""When a pass of a network is recorded as a graph, launched again, or called as it is; with a stand-in for the graphs, since it takes no GPU to decide that."""

import gc
import weakref
from dataclasses import replace

import pytest

pytest.importorskip("comfy")

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.model_management import OOM_EXCEPTION, InterruptProcessingException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from control_composer.control import EncoderNetwork, graphs, residency
from control_composer.control.graphs import AS_GRAPH, Graphs, drop_graphs, kind_of, run_network
from control_composer.control.lane import called
from control_composer.tests.control.encoders import NETWORKS, TYPES, equal, inputs_of, small, small_module

FIRST = f"no graph: {graphs.FIRST_PASS}"
GIB = 1024**3


class Unrecordable(EncoderNetwork):
    unrecordable = "it waits for the device"


class StandIn:
    """A graph that computes when it is replayed, with the pass that was recorded."""

    def __init__(self, recorder, inputs):
        self.recorder, self.kind = recorder, inputs.x.shape
        self.compute = None
        self.stale = False

    def tell(self, event):
        self.recorder.events.append(event)
        trouble = self.recorder.trouble.pop(event, None)
        if isinstance(trouble, BaseException):
            raise trouble
        if trouble is not None:
            trouble()

    def warm_up(self, compute, inputs):
        self.tell("warm up")
        compute(inputs)

    def capture(self, compute):
        self.tell("capture")
        self.compute = compute

    def replay(self, inputs):
        self.tell("replay")
        return self.compute(inputs).map(lambda residual, *_: residual.clone())

    def discard(self):
        self.tell("discard")
        self.compute, self.stale = None, True


class Recorder:
    """Stands for the device of one `Graphs`; `trouble` is raised or called at the next event of that name."""

    def __init__(self):
        self.events, self.trouble, self.made = [], {}, []
        self.free, self.busy = 64 * GIB, False

    def __call__(self, device):
        return self

    def recording(self, device):
        return self.busy

    def room(self, device):
        return self.free

    def graph(self, inputs):
        self.made.append(StandIn(self, inputs))
        return self.made[-1]

    def new_events(self):
        events = list(self.events)
        self.events.clear()
        return events


@pytest.fixture(autouse=True)
def recordable_attention(monkeypatch):
    """Whatever the host has chosen for this machine."""
    attention = comfy.ldm.modules.attention
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def kept(recorder):
    return Graphs(recorder)


@pytest.fixture
def network():
    return small()


def small_union():
    return replace(small(union_controlnet_num_control_type=TYPES), union_type=3)


def run(kept, network, inputs):
    """One pass; its words, after its residuals were compared with those of a plain one."""
    with torch.inference_mode():
        expected = called(network, inputs)
        found, words = kept.run(network, inputs)
    assert equal(found, expected)
    return words


def test_the_first_pass_is_plain_the_second_is_recorded_and_then_it_is_launched(kept, recorder, network):
    assert run(kept, network, inputs_of(network)) == FIRST
    assert recorder.new_events() == []
    assert run(kept, network, inputs_of(network, seed=1)) == AS_GRAPH
    assert recorder.new_events() == ["warm up", "capture", "replay"]
    assert run(kept, network, inputs_of(network, seed=2)) == AS_GRAPH
    assert recorder.new_events() == ["replay"]


# -- kinds ----------------------------------------------------------------------------------------------------------------------------


def test_other_numbers_are_of_the_same_kind(network):
    assert kind_of(network, inputs_of(network, seed=1)) == kind_of(network, inputs_of(network, seed=2))


def with_context(inputs, context):
    return replace(inputs, context=context)


OTHER_KINDS = {
    "rows": lambda network: (network, inputs_of(network, rows=3)),
    "size": lambda network: (network, inputs_of(network, size=(8, 5))),
    "hints": lambda network: (network, inputs_of(network, hints=2)),
    "types": lambda network: (network, inputs_of(network, types=((1,), (3,)))),
    "type": lambda network: (replace(network, union_type=4), inputs_of(replace(network, union_type=4))),
    "tokens": lambda network: (
        network,
        with_context(inputs_of(network), torch.cat([inputs_of(network).context] * 2, dim=1)),
    ),
    "repeated rows": lambda network: (
        network,
        with_context(inputs_of(network), inputs_of(network).context[:1].expand(2, -1, -1)),
    ),
    "y": lambda network: (network, replace(inputs_of(network), y=torch.zeros(2, 2816))),
    "dtype of an input": lambda network: (network, with_context(inputs_of(network), inputs_of(network).context.half())),
    "pooling": lambda network: (replace(network, pooling=True), inputs_of(network)),
    "dtype": lambda network: (replace(network, manual_cast_dtype=torch.float64), inputs_of(network)),
    "class": lambda network: (
        Unrecordable(network.module, network.patcher, network.name, network.base, union_type=3),
        inputs_of(network),
    ),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_what_launches_other_kernels_is_of_another_kind(name):
    network = small_union()
    assert kind_of(*OTHER_KINDS[name](network)) != kind_of(network, inputs_of(network))


def test_no_types_are_the_networks_own():
    network = small_union()
    told, given = inputs_of(network, rows=1), replace(inputs_of(network, rows=1), types=())
    assert kind_of(network, told) == kind_of(network, given)


def test_switches_of_the_process_make_another_kind(network, monkeypatch):
    before = kind_of(network, inputs_of(network))
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", not torch.backends.cudnn.deterministic)
    deterministic = kind_of(network, inputs_of(network))
    attention = comfy.ldm.modules.attention
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_basic)
    assert len({before, deterministic, kind_of(network, inputs_of(network))}) == 3


def test_each_kind_has_a_graph_of_its_own(kept, recorder, network):
    for _ in range(2):
        for rows in (1, 2):
            run(kept, network, inputs_of(network, rows=rows))
    assert len(recorder.made) == 2
    assert [run(kept, network, inputs_of(network, seed=5, rows=rows)) for rows in (2, 1)] == [AS_GRAPH] * 2


# -- how many -------------------------------------------------------------------------------------------------------------------------


def test_the_graph_that_was_not_used_for_longest_makes_room(kept, recorder, network):
    kinds = [inputs_of(network, size=(8, width)) for width in range(8, 13)]
    for one in kinds[:4]:
        run(kept, network, one)
        run(kept, network, one)
    run(kept, network, kinds[0])
    assert len(kept) == graphs.MOST_GRAPHS == 4
    assert run(kept, network, kinds[4]) == FIRST
    assert run(kept, network, kinds[4]) == AS_GRAPH
    assert [graph.stale for graph in recorder.made] == [False, True, False, False, False]
    assert run(kept, network, kinds[1]) == f"no graph: {graphs.IN_USE}"  # kinds[4] was used since


def test_five_kinds_in_turn_do_not_push_each_other_out(kept, recorder, network):
    """As areas of five sizes in each step."""
    kinds = [inputs_of(network, size=(8, width)) for width in range(8, 13)]
    for _ in range(3):
        told = [run(kept, network, one) for one in kinds]
    assert told == [AS_GRAPH] * 4 + [f"no graph: {graphs.IN_USE}"]
    assert len(recorder.made) == 4


def test_kinds_are_not_remembered_without_end(kept, network, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_KINDS", 3)
    kinds = [inputs_of(network, rows=rows) for rows in (1, 2, 3, 4)]
    assert [run(kept, network, one) for one in kinds] == [FIRST] * 4
    assert run(kept, network, kinds[0]) == FIRST  # forgotten
    assert run(kept, network, kinds[3]) == AS_GRAPH


# -- weights that move ----------------------------------------------------------------------------------------------------------------


def twice(kept, network):
    return [run(kept, network, inputs_of(network, seed)) for seed in (1, 2)]


def patch(network):
    weight = network.module.time_embed[0].weight
    network.patcher.add_patches({"time_embed.0.weight": (torch.full_like(weight, 0.1),)})
    comfy.model_management.load_models_gpu([network.patcher])


def reload(network):
    network.patcher.detach()
    comfy.model_management.load_models_gpu([network.patcher])
    network.module.time_embed[0].weight.data = network.module.time_embed[0].weight.data.clone()


@pytest.mark.parametrize("move", [patch, reload], ids=lambda move: move.__name__)
def test_graphs_of_weights_that_have_moved_are_given_up(kept, recorder, network, move):
    assert twice(kept, network) == [FIRST, AS_GRAPH]
    move(network)
    recorder.new_events()
    assert twice(kept, network) == [FIRST, AS_GRAPH]
    assert recorder.new_events() == ["discard", "warm up", "capture", "replay"]
    assert len(kept) == 1


def test_an_offloaded_network_is_called_as_it_is_until_it_is_back(kept, recorder, network):
    assert twice(kept, network) == [FIRST, AS_GRAPH]
    network.patcher.partially_unload(torch.device("cpu"), 1)
    network.module.time_embed[0].weight.data = network.module.time_embed[0].weight.data.clone()
    assert twice(kept, network) == [f"no graph: {residency.OFFLOADED}"] * 2
    assert len(kept) == 0 and recorder.made[0].stale
    network.patcher.detach()
    comfy.model_management.load_models_gpu([network.patcher])
    assert twice(kept, network) == [FIRST, AS_GRAPH]


def test_a_graph_that_another_has_ended_is_recorded_again(kept, recorder, network):
    twice(kept, network)
    recorder.made[0].stale = True
    recorder.new_events()
    assert run(kept, network, inputs_of(network)) == AS_GRAPH
    assert recorder.new_events() == ["discard", "warm up", "capture", "replay"]


def test_a_network_that_the_host_takes_off_the_device_keeps_no_graphs(kept, recorder, network, monkeypatch):
    monkeypatch.setitem(graphs.GRAPHS, network.module, kept)
    twice(kept, network)
    for _ in range(2):
        run(kept, network, inputs_of(network, rows=1))
    network.patcher.detach(unpatch_all=False)  # as before each run
    assert len(kept) == 2
    network.patcher.detach()
    assert len(kept) == 0 and recorder.made[0].stale
    assert len(network.patcher.get_callbacks("on_detach_after", graphs.KEY)) == 1


def test_graphs_can_be_dropped(kept, recorder, network, monkeypatch):
    monkeypatch.setitem(graphs.GRAPHS, network.module, kept)
    twice(kept, network)
    drop_graphs(small_module())
    assert len(kept) == 1
    drop_graphs(network.module)
    assert len(kept) == 0
    assert twice(kept, network) == [FIRST, AS_GRAPH]
    drop_graphs()
    assert len(kept) == 0


def test_graphs_end_with_their_module(monkeypatch):
    module = small_module()
    gc.collect()
    gc.disable()
    try:
        alive = weakref.ref(module)
        graphs.GRAPHS[module] = kept = Graphs(Recorder())
        network = EncoderNetwork.from_module(module, name="test", base="SD1")
        network.patcher.load(torch.device("cpu"), full_load=True)
        inputs = inputs_of(network)
        kept._why_plain(network, inputs.x.device)
        assert kept._watch is not None
        ended = weakref.ref(kept)
        del module, network, kept
        assert alive() is None and ended() is None
    finally:
        gc.enable()


# -- reasons --------------------------------------------------------------------------------------------------------------------------


def unrecordable(network, recorder, monkeypatch):
    return Unrecordable(network.module, network.patcher, network.name, network.base)


def split_attention(network, recorder, monkeypatch):
    monkeypatch.setattr(comfy.ldm.modules.attention, "optimized_attention", comfy.ldm.modules.attention.attention_split)


def dynamic(network, recorder, monkeypatch):
    monkeypatch.setattr(type(network.patcher), "is_dynamic", lambda self: True)


def unloaded(network, recorder, monkeypatch):
    network.patcher.detach()


def no_room(network, recorder, monkeypatch):
    recorder.free = comfy.model_management.minimum_inference_memory() + 1


def busy(network, recorder, monkeypatch):
    recorder.busy = True


def host_records(network, recorder, monkeypatch):
    monkeypatch.setattr(graphs, "host_records", lambda: True)


@pytest.mark.parametrize(
    ("hinder", "words"),
    [
        (unrecordable, "it waits for the device"),
        (split_attention, "the host's attention cannot be recorded (attention_split)"),
        (dynamic, residency.MOVED_BY_HOST),
        (unloaded, residency.NOT_LOADED),
        (no_room, graphs.NO_ROOM),
        (busy, graphs.HOST_RECORDS),
        (host_records, graphs.HOST_RECORDS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_why_there_is_no_graph_is_said(kept, recorder, network, monkeypatch, hinder, words):
    network = hinder(network, recorder, monkeypatch) or network
    run(kept, network, inputs_of(network))
    for _ in range(2):
        assert run(kept, network, inputs_of(network)) == f"no graph: {words}"
    assert recorder.made == []


def test_what_hindered_for_a_while_hinders_no_longer(kept, recorder, network):
    recorder.free = 0
    assert twice(kept, network) == [FIRST, f"no graph: {graphs.NO_ROOM}"]
    recorder.free = 64 * GIB
    assert run(kept, network, inputs_of(network)) == AS_GRAPH


def test_inputs_on_several_devices_are_not_recorded(network, kept):
    with torch.inference_mode():
        inputs = replace(inputs_of(network), timesteps=torch.zeros(2, device="meta"))
    assert kept._record("kind", network, inputs) == graphs.OTHER_DEVICE


def test_where_there_is_no_cuda_a_pass_is_plain_and_nothing_is_told(network):
    with torch.inference_mode():
        found, words = run_network(network, inputs_of(network))
        assert equal(found, called(network, inputs_of(network)))
    assert words == ""
    assert network.module not in graphs.GRAPHS


# -- what goes wrong ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["warm up", "capture"])
def test_an_interruption_goes_through_and_leaves_nothing(kept, recorder, network, moment):
    run(kept, network, inputs_of(network))
    recorder.trouble[moment] = InterruptProcessingException()
    with torch.inference_mode(), pytest.raises(InterruptProcessingException):
        kept.run(network, inputs_of(network))
    assert len(kept) == 0 and recorder.made[0].stale
    assert run(kept, network, inputs_of(network)) == AS_GRAPH


def test_the_hosts_interruption_comes_from_the_passes_themselves(kept, recorder, network):
    run(kept, network, inputs_of(network))
    recorder.trouble["warm up"] = comfy.model_management.interrupt_current_processing
    with torch.inference_mode(), pytest.raises(InterruptProcessingException):
        kept.run(network, inputs_of(network))
    assert not comfy.model_management.processing_interrupted()
    assert run(kept, network, inputs_of(network)) == AS_GRAPH


@pytest.mark.parametrize("moment", ["warm up", "capture"])
def test_out_of_memory_frees_all_graphs_and_is_not_tried_again(kept, recorder, network, moment):
    twice(kept, network)
    large = inputs_of(network, rows=3)
    run(kept, network, large)
    recorder.trouble[moment] = OOM_EXCEPTION("out of memory")
    for _ in range(3):
        assert run(kept, network, large) == f"no graph: {graphs.OUT_OF_MEMORY}"
    assert all(graph.stale for graph in recorder.made) and len(recorder.made) == 2
    assert twice(kept, network) == [FIRST, AS_GRAPH]  # another kind
    patch(network)
    assert [run(kept, network, large) for _ in range(2)] == [FIRST, AS_GRAPH]


def test_out_of_memory_at_a_launch_is_a_plain_pass(kept, recorder, network):
    twice(kept, network)
    recorder.trouble["replay"] = OOM_EXCEPTION("out of memory")
    assert run(kept, network, inputs_of(network)) == f"no graph: {graphs.OUT_OF_MEMORY}"
    assert len(kept) == 0
    assert run(kept, network, inputs_of(network)) == f"no graph: {graphs.OUT_OF_MEMORY}"


def test_a_recording_that_fails_is_the_modules_last(kept, recorder, network):
    run(kept, network, inputs_of(network))
    recorder.trouble["capture"] = RuntimeError("operation not permitted when stream is capturing\nand more")
    words = "no graph: recording it failed (RuntimeError: operation not permitted when stream is capturing)"
    assert run(kept, network, inputs_of(network)) == words
    for rows in (2, 3, 3):
        assert run(kept, network, inputs_of(network, rows=rows)) == words
    assert len(recorder.made) == 1 and recorder.made[0].stale


def test_an_error_of_a_launch_is_raised(kept, recorder, network):
    twice(kept, network)
    recorder.trouble["replay"] = RuntimeError("an illegal memory access was encountered")
    with torch.inference_mode(), pytest.raises(RuntimeError, match="illegal memory access"):
        kept.run(network, inputs_of(network))


# -- what networks do -----------------------------------------------------------------------------------------------------------------


def subclasses(base):
    for one in base.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_class_that_computes_in_its_own_way_says_whether_that_can_be_recorded():
    ours = [one for one in subclasses(EncoderNetwork) if one.__module__.startswith("control_composer.control.")]
    assert {one.__name__ for one in ours} >= {"CtrLoraNetwork", "LiteNetwork"}
    computing = ("residuals", "first_block", "type_embedding")
    silent = [one for one in ours if any(name in vars(one) for name in computing) and "unrecordable" not in vars(one)]
    assert silent == []


class OnlyTheDevice(TorchDispatchMode):
    """Fails where something is read from the device, or brought to it: tensors stand on the device that has no numbers."""

    waits = ("_local_scalar_dense", "scalar_tensor", "lift_fresh", "nonzero", "equal", "is_nonzero")

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        assert name not in self.waits, name
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves((arguments, keywords, result)):
            assert not isinstance(tensor, torch.Tensor) or tensor.device.type == "meta", name
        return result


PASSES = [*NETWORKS, "union of two types", "union of types by row"]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_waits_for_nothing_and_brings_nothing(name):
    told = {"union of two types": ((1, 4), (1, 4)), "union of types by row": ((), (0, TYPES - 1))}.get(name, ())
    network = NETWORKS[name.split()[0]]()
    assert network.unrecordable == ""
    network.module.to("meta")
    inputs = inputs_of(network, types=told, device="meta")
    with torch.inference_mode(), OnlyTheDevice():
        residuals = called(network, inputs)
    assert len(residuals.output) == len(network.blocks(5, 8)) - 1


def test_types_are_told_as_they_were():
    """The union network's embedding of types, by numbers put in one by one, as the host's class has them."""
    network = small_union()
    embedding = network.module.control_add_embedding
    like = torch.zeros(1, 128)
    with torch.inference_mode():
        for types in ([2], [0, 5]):
            assert torch.equal(
                network.type_embedding([tuple(types)], like), embedding(types, torch.float32, torch.device("cpu"))
            )
