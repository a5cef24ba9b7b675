"""A pass as a graph: recorded, launched, given up. On a CPU with streams and graphs that stand for CUDA's, and on a GPU with these."""

import gc
import threading
import weakref
from dataclasses import replace

import pytest

pytest.importorskip("comfy")

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.model_management import OOM_EXCEPTION, InterruptProcessingException

from control_composer.control import cuda_graph, graphs, residency
from control_composer.control.cuda_graph import RECORDING, CudaRecorder, StaticInput, forget_frames
from control_composer.control.graphs import AS_GRAPH, Graphs, drop_graphs, run_network
from control_composer.control.lane import called
from control_composer.control.network import NetworkInputs
from control_composer.residuals.residuals import Residuals
from control_composer.tests import narrow
from control_composer.tests.control import tape
from control_composer.tests.control.encoders import NETWORKS, equal, inputs_of, put, small

FIRST = f"no graph: {graphs.FIRST_PASS}"
CPU = torch.device("cpu")


LAYOUTS = {
    "whole": lambda numbers: numbers(2, 3, 4, 5),
    "repeated": lambda numbers: numbers(1, 3, 4, 5).expand(2, -1, -1, -1),
    "channels last": lambda numbers: numbers(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "part": lambda numbers: numbers(2, 99, 6)[:, :77],
    "repeated twice": lambda numbers: numbers(4).half().expand(3, 2, 4),
    "one number": lambda numbers: numbers(()).expand(2),
    "integers": lambda numbers: (9 * numbers(3)).long(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_static_input_is_read_like_the_tensors_that_it_takes(layout):
    static, places = StaticInput(LAYOUTS[layout](torch.randn)), set()
    for _ in range(2):
        tensor = LAYOUTS[layout](torch.randn)
        static.take(tensor)
        assert static.tensor.shape == tensor.shape and static.tensor.dtype == tensor.dtype
        assert static.tensor.stride() == tensor.stride()
        assert torch.equal(static.tensor, tensor)
        places.add(static.tensor.data_ptr())
    assert len(places) == 1


# -- with stand-ins -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    attention = comfy.ldm.modules.attention
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    monkeypatch.setattr(CudaRecorder, "room", staticmethod(lambda device: 1 << 40))
    tape.put_in_place(monkeypatch)
    cuda_graph.LIVE.clear()
    yield
    cuda_graph.LIVE.clear()
    assert not RECORDING.locked() and gc.isenabled() and not tape.Graph.capturing


def run(kept, network, inputs):
    """One pass; its words, after its residuals were compared with those of a plain one."""
    with torch.inference_mode():
        expected = called(network, inputs)
        found, words = kept.run(network, inputs)
    assert equal(found, expected)
    return words


def recorded(inputs, compute, stream=None):
    """A graph of a small computation, and what it shares with others."""
    with tape.on(stream or tape.Stream(name="side")):
        recorder = CudaRecorder(CPU)
        graph = recorder.graph(inputs)
        graph.warm_up(compute, inputs)
        graph.capture(compute)
    return graph, recorder


def some_inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return NetworkInputs(*(torch.randn(2, 3, 4, 5, generator=generator) for _ in range(4)))


def doubled(inputs):
    half = inputs.x[:, :1].movedim(2, 3)
    return Residuals(output=(2 * inputs.x, half + 1), middle=(inputs.timesteps * inputs.context,))


@pytest.mark.parametrize("name", NETWORKS)
def test_replays_give_what_plain_passes_give(stand_in, name):
    network, kept = NETWORKS[name](), Graphs()
    with tape.on(tape.Stream(name="side")):
        assert [run(kept, network, inputs_of(network, seed)) for seed in range(3)] == [FIRST, AS_GRAPH, AS_GRAPH]


def test_batches_in_turn(stand_in):
    network, kept = small(), Graphs()
    with tape.on(tape.Stream(name="side")):
        told = [run(kept, network, inputs_of(network, seed, rows)) for seed in range(4) for rows in (1, 2)]
    assert told == [FIRST] * 2 + [AS_GRAPH] * 6


def test_replays_read_the_weights_where_they_are(stand_in):
    network, kept = small(), Graphs()
    with tape.on(tape.Stream(name="side")):
        for seed in (0, 1):
            run(kept, network, inputs_of(network, seed))
        narrow.fill(network.module, seed=7)
        assert run(kept, network, inputs_of(network, 2)) == AS_GRAPH
        weight = network.module.time_embed[0].weight
        network.patcher.add_patches({"time_embed.0.weight": (torch.full_like(weight, 0.1),)})
        comfy.model_management.load_models_gpu([network.patcher])
        assert [run(kept, network, inputs_of(network, seed)) for seed in (3, 4)] == [FIRST, AS_GRAPH]


def test_residuals_outlive_the_next_replay_and_are_parts_of_one_tensor(stand_in):
    graph, _ = recorded(some_inputs(), doubled)
    first = graph.replay(some_inputs(1))
    graph.replay(some_inputs(2))
    assert equal(first, doubled(some_inputs(1)))
    parts = [residual for _, _, residual in first.items()]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert all(part.storage_offset() % cuda_graph.ALIGNMENT == 0 for part in parts)


@pytest.mark.parametrize("inference", [True, False])
def test_residuals_are_of_the_callers_mode(stand_in, inference):
    """A thread of several GPUs is not in inference mode, and could not write into what was made in it."""
    with torch.inference_mode(not inference), torch.no_grad():
        graph, _ = recorded(some_inputs(), doubled)
    with torch.inference_mode(inference), torch.no_grad():
        residuals = graph.replay(some_inputs(1))
        assert residuals.output[0].is_inference() == inference
        residuals.output[0].mul_(2)
        assert equal(graph.replay(some_inputs(2)), doubled(some_inputs(2)))


def test_a_pass_with_several_dtypes_is_not_recorded(stand_in):
    def mixed(inputs):
        return Residuals(output=(inputs.x, inputs.x.half()))

    with pytest.raises(TypeError, match="residuals of several kinds"):
        recorded(some_inputs(), mixed)


def test_what_runs_on_another_stream_than_it_was_recorded_on_waits_on_both_sides(stand_in):
    graph, _ = recorded(some_inputs(), doubled)
    tape.LOG.clear()
    with tape.on(tape.Stream(name="other")):
        graph.replay(some_inputs(1))
    assert tape.LOG == [
        ("side", "waits for", "other"),
        ("side", "replays"),
        ("other", "waits for", "side"),
        ("side", "waits for", "other"),
    ]


def test_on_its_own_stream_it_waits_for_nothing(stand_in):
    side = tape.Stream(name="side")
    graph, _ = recorded(some_inputs(), doubled, side)
    tape.LOG.clear()
    with tape.on(side):
        graph.replay(some_inputs(1))
    assert tape.LOG == [("side", "replays")]


def test_nothing_is_recorded_on_the_default_stream(stand_in):
    assert CudaRecorder(CPU).stream is not tape.DEFAULT


def test_garbage_is_not_collected_while_it_is_recorded(stand_in):
    collecting = []

    def compute(inputs):
        collecting.append(gc.isenabled())
        return doubled(inputs)

    recorded(some_inputs(), compute)
    assert collecting == [True] * cuda_graph.WARM_UP_PASSES + [False]
    gc.disable()
    try:
        recorded(some_inputs(), doubled)
        assert not gc.isenabled()
    finally:
        gc.enable()


def failing(problem, alive):
    """A computation that fails when it is recorded, with a tensor in its hands."""
    passes = []

    def layer(x):
        made = x + 1
        if len(passes) > cuda_graph.WARM_UP_PASSES:
            alive.append(weakref.ref(made))
            try:
                raise ValueError("something else before")
            except ValueError:
                raise problem  # noqa: B904
        return made

    def compute(inputs):
        passes.append(1)
        return Residuals(output=(layer(layer(inputs.x)),))

    return compute


@pytest.mark.parametrize(
    "problem", [InterruptProcessingException(), OOM_EXCEPTION("out of memory"), RuntimeError("not permitted")]
)
def test_a_failed_recording_is_ended_with_nothing_left_in_it(stand_in, monkeypatch, problem):
    alive, left, graphs_made = [], [], []
    end = tape.Graph.capture_end

    def capture_end(self):
        left.extend(one() is not None for one in alive)
        graphs_made.append(self)
        self.tape.operations.clear()
        end(self)

    monkeypatch.setattr(tape.Graph, "capture_end", capture_end)
    # The tape holds on to what it has recorded, as CUDA does not.
    monkeypatch.setattr(
        tape.Tape, "__torch_dispatch__", lambda self, f, types, args=(), kwargs=None: f(*args, **(kwargs or {}))
    )
    with pytest.raises(type(problem)):
        recorded(some_inputs(), failing(problem, alive))
    assert left == [False]
    assert [graph.tape for graph in graphs_made] == [None]
    assert not RECORDING.locked() and gc.isenabled() and not tape.Graph.capturing


def test_an_end_that_fails_too_hides_nothing_and_gives_the_allocator_back(stand_in, monkeypatch):
    end, pools = tape.Graph.capture_end, []
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: pools.append(pool), raising=False)

    def capture_end(self):
        end(self)
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(tape.Graph, "capture_end", capture_end)
    with pytest.raises(InterruptProcessingException):
        recorded(some_inputs(), failing(InterruptProcessingException(), []))
    with pytest.raises(RuntimeError, match="previous error"):
        recorded(some_inputs(), doubled)
    assert len(pools) == 2 and None not in pools


def test_an_interruption_in_a_recording_reaches_the_sampler_and_the_next_pass_is_recorded(stand_in, monkeypatch):
    network, kept = small(), Graphs()
    with tape.on(tape.Stream(name="side")):
        run(kept, network, inputs_of(network))
        begin = tape.Graph.capture_begin

        def interrupted(self, **arguments):
            begin(self, **arguments)
            comfy.model_management.interrupt_current_processing()

        with monkeypatch.context() as patch, torch.inference_mode(), pytest.raises(InterruptProcessingException):
            patch.setattr(tape.Graph, "capture_begin", interrupted)
            kept.run(network, inputs_of(network))
        assert run(kept, network, inputs_of(network)) == AS_GRAPH


def test_frames_let_go_along_the_whole_chain():
    alive = []

    def inner():
        held = torch.zeros(3)
        alive.append(weakref.ref(held))
        raise KeyError("first")

    def outer():
        held = torch.zeros(3)
        alive.append(weakref.ref(held))
        try:
            inner()
        except KeyError as problem:
            raise ValueError("second") from problem

    with pytest.raises(ValueError, match="second") as caught:
        outer()
    assert all(one() is not None for one in alive)
    forget_frames(caught.value)
    assert [one() for one in alive] == [None, None]


# -- what ends together ---------------------------------------------------------------------------------------------------------------


def test_graphs_of_one_stream_end_together(stand_in):
    side, other = tape.Stream(name="side"), tape.Stream(name="other")
    (first, _), (second, _), (apart, _) = (
        recorded(some_inputs(), doubled, side),
        recorded(some_inputs(), doubled, side),
        recorded(some_inputs(), doubled, other),
    )
    assert not (first.stale or second.stale or apart.stale)
    first.discard()
    assert first.stale and second.stale and not apart.stale
    third, _ = recorded(some_inputs(), doubled, side)
    second.discard()  # long given up
    assert not third.stale


def test_a_graph_that_nobody_holds_any_more_ends_the_others_of_its_stream(stand_in):
    """As when a network is forgotten."""
    side = tape.Stream(name="side")
    first, _ = recorded(some_inputs(), doubled, side)
    second, _ = recorded(some_inputs(), doubled, side)
    del first
    assert second.stale


def test_a_graph_belongs_to_its_thread(stand_in):
    graph, _ = recorded(some_inputs(), doubled)
    told = []
    thread = threading.Thread(target=lambda: told.append(graph.stale))
    thread.start()
    thread.join()
    assert told == [True] and not graph.stale


def test_graphs_of_one_module_share_a_pool_that_is_in_use(stand_in):
    side = tape.Stream(name="side")
    with tape.on(side):
        recorder = CudaRecorder(CPU)
        made = []
        for rows in (1, 2):
            inputs = replace(some_inputs(), x=torch.randn(rows, 3, 4, 5))
            made.append(recorder.graph(inputs))
            made[-1].warm_up(lambda given: Residuals(output=(given.x + 1,)), inputs)
            made[-1].capture(lambda given: Residuals(output=(given.x + 1,)))
        pools = [graph.pool() for graph in made]
        assert pools[0] is pools[1] is recorder.pool()
        made[0].discard()
        assert recorder.pool() is not pools[0]
    assert recorded(some_inputs(), doubled)[0].pool() is not pools[0]


def test_a_network_whose_graph_another_network_has_ended_records_again(stand_in):
    """Two networks in turn on one stream, one of which is unloaded."""
    one, two, graphs_of_one, graphs_of_two = small(), small(), Graphs(), Graphs()
    with tape.on(tape.Stream(name="side")):
        for _ in range(2):
            run(graphs_of_one, one, inputs_of(one))
            run(graphs_of_two, two, inputs_of(two))
        graphs_of_one.drop()
        assert run(graphs_of_two, two, inputs_of(two)) == AS_GRAPH
        assert [run(graphs_of_one, one, inputs_of(one)) for _ in range(2)] == [FIRST, AS_GRAPH]
        assert run(graphs_of_two, two, inputs_of(two)) == AS_GRAPH
        assert len(graphs_of_one) == len(graphs_of_two) == 1


# -- on a GPU -------------------------------------------------------------------------------------------------------------------------

gpu = pytest.mark.gpu


@pytest.fixture
def cuda():
    if not torch.cuda.is_available() or torch.version.hip is not None:
        pytest.skip("no CUDA device")
    device = comfy.model_management.get_torch_device()
    drop_graphs()
    stream = torch.cuda.Stream(device)
    with torch.inference_mode(), torch.cuda.stream(stream):
        yield device
    torch.cuda.synchronize()
    drop_graphs()


def on_gpu(name):
    network = NETWORKS[name](dtype=torch.float16) if name != "lite" else NETWORKS[name]()
    network.patcher.detach()
    comfy.model_management.load_models_gpu([network.patcher], force_full_load=True)
    if network.patcher.is_dynamic():
        pytest.skip("the host manages weights dynamically")
    return network


def same(network, inputs):
    """The words of a pass whose residuals are those of a plain one."""
    expected = called(network, inputs)
    found, words = run_network(network, inputs)
    assert equal(found, expected)
    return words


@gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_replays_equal_plain_passes(cuda, name):
    network = on_gpu(name)
    told = [same(network, inputs_of(network, seed, device=cuda)) for seed in range(5)]
    assert told == [FIRST] + [AS_GRAPH] * 4


@gpu
@pytest.mark.parametrize("name", ["sd1", "sdxl", "union"])
def test_gpu_batches_and_sizes_in_turn(cuda, name):
    network = on_gpu(name)
    kinds = [(2, (8, 8)), (1, (8, 8)), (4, (9, 13)), (2, (16, 8)), (3, (8, 8))]
    for seed in range(4):
        for rows, size in kinds:
            words = same(network, inputs_of(network, seed, rows, size, device=cuda))
            assert words == AS_GRAPH or seed == 0 or (rows, size) == kinds[4]


@gpu
def test_gpu_types_of_a_union_network(cuda):
    network = on_gpu("union")
    for types in (((3,), (3,)), ((1, 4), (1, 4)), ((), (5,))):
        told = [same(network, inputs_of(network, seed, types=types, device=cuda)) for seed in range(3)]
        assert told == [FIRST, AS_GRAPH, AS_GRAPH]


@gpu
def test_gpu_residuals_are_kept_while_the_next_are_computed(cuda):
    network = on_gpu("sd1")
    kept = []
    for seed in range(6):
        inputs = inputs_of(network, seed, device=cuda)
        kept.append((called(network, inputs), run_network(network, inputs)[0]))
    assert all(equal(found, expected) for expected, found in kept)


@gpu
def test_gpu_a_replay_does_not_wait_for_the_device(cuda):
    network = on_gpu("sd1")
    inputs = [inputs_of(network, seed, device=cuda) for seed in range(4)]
    for one in inputs[:2]:
        run_network(network, one)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in inputs[2:]:
            assert run_network(network, one)[1] == AS_GRAPH
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
def test_gpu_weights_that_are_patched_and_taken_back(cuda):
    network = on_gpu("sd1")
    inputs = [inputs_of(network, seed, device=cuda) for seed in range(3)]
    before = called(network, inputs[0])
    assert [same(network, one) for one in inputs] == [FIRST, AS_GRAPH, AS_GRAPH]
    weight = network.module.time_embed[0].weight
    patched = network.patcher.clone()
    patched.add_patches({"time_embed.0.weight": (torch.full_like(weight, 0.1, device="cpu"),)})
    for patcher in (patched, network.patcher):
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        now = replace(network, patcher=patcher)
        assert [same(now, one) for one in inputs] == [FIRST, AS_GRAPH, AS_GRAPH]
    assert equal(run_network(network, inputs[0])[0], before)


@gpu
def test_gpu_weights_that_go_and_come_back(cuda):
    network = on_gpu("sd1")
    inputs = [inputs_of(network, seed, device=cuda) for seed in range(3)]
    for _ in range(3):
        assert [same(network, one) for one in inputs] == [FIRST, AS_GRAPH, AS_GRAPH]
        network.patcher.detach()
        assert len(graphs.GRAPHS[network.module]) == 0
        torch.cuda.empty_cache()
        comfy.model_management.load_models_gpu([network.patcher], force_full_load=True)
    network.patcher.partially_unload(network.patcher.offload_device, 1)
    assert same(network, inputs[0]) == f"no graph: {residency.OFFLOADED}"


@gpu
@pytest.mark.parametrize("kind", ["interrupted", "out of memory", "not permitted"])
def test_gpu_a_recording_that_fails_leaves_a_device_that_works(cuda, monkeypatch, kind):
    network, other = on_gpu("sd1"), on_gpu("sdxl")
    inputs = inputs_of(network, device=cuda)
    same(network, inputs)
    middle = type(network.module.middle_block)
    forward = middle.forward

    def troubled(self, x, *arguments):
        if torch.cuda.is_current_stream_capturing():
            if kind == "interrupted":
                comfy.model_management.interrupt_current_processing()
            elif kind == "out of memory":
                raise OOM_EXCEPTION("out of memory")
            else:
                x.sum().item()
        return forward(self, x, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(middle, "forward", troubled)
        if kind == "interrupted":
            with pytest.raises(InterruptProcessingException):
                run_network(network, inputs)
        else:
            found, words = run_network(network, inputs)
            assert words.startswith("no graph: ") and words != FIRST
            assert equal(found, called(network, inputs))
    torch.cuda.synchronize()
    if kind == "interrupted":
        assert [same(network, inputs_of(network, seed, device=cuda)) for seed in range(2)] == [AS_GRAPH] * 2
    assert [same(other, inputs_of(other, seed, device=cuda)) for seed in range(3)] == [FIRST, AS_GRAPH, AS_GRAPH]


@gpu
def test_gpu_two_networks_on_changing_streams(cuda):
    """Each run may give a network another stream than the one that it was recorded on."""
    one, two = on_gpu("sd1"), on_gpu("sdxl")
    streams = [torch.cuda.Stream(cuda) for _ in range(2)]
    begin = torch.cuda.current_stream(cuda)
    for seed in range(6):
        for turn, network in enumerate((one, two)):
            stream = streams[(turn + seed // 2) % 2]
            inputs = inputs_of(network, seed, device=cuda)
            expected = called(network, inputs)
            stream.wait_stream(begin)
            with torch.cuda.stream(stream):
                found, words = run_network(network, inputs)
            begin.wait_stream(stream)
            assert words == (AS_GRAPH if seed else FIRST)
            assert equal(found, expected)


@gpu
def test_gpu_a_network_that_is_forgotten_takes_its_memory_along(cuda):
    module = narrow.make_module("sd1", dtype=torch.float16)
    network = put(module)
    alive = weakref.ref(module)
    for seed in range(3):
        run_network(network, inputs_of(network, seed, device=cuda))
    del module, network
    comfy.model_management.cleanup_models()
    gc.collect()
    assert alive() is None
    assert not any(owner is None for owner in graphs.GRAPHS)
