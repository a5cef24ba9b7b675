"""Passes of encoder networks as CUDA graphs: which are kept, when they are recorded, and when a pass is called as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ..residuals.residuals import Residuals
from .cuda_graph import Compute, CudaRecorder
from .lane import called
from .lanes import host_records
from .memory import activation_bytes
from .network import EncoderNetwork, NetworkInputs
from .residency import RECORDABLE_ATTENTION, Watch, attention_name, why_not_resident

MOST_GRAPHS = 4
"""Of a module: each keeps the memory of a pass."""
MOST_KINDS = 64
"""Of a module: kinds of inputs that are remembered."""
KEY = "control_composer.graphs"

AS_GRAPH = "as a CUDA graph"
FIRST_PASS = "the first pass of its kind"
IN_USE = "as many others as are kept are in use"
HOST_RECORDS = "the host records graphs of its own"
NO_ROOM = "too little free memory"
OUT_OF_MEMORY = "memory did not suffice to record it"
OTHER_DEVICE = "some of its inputs are on another device"


GRAPHS: WeakKeyDictionary[Any, Graphs] = WeakKeyDictionary()
"""By module: a network's wrappers come and go with the nodes of a workflow."""


class Graph(Protocol):
    """`cuda_graph.CudaGraph`, or what stands in for it where there is no CUDA."""

    @property
    def stale(self) -> bool: ...

    def warm_up(self, compute: Compute, inputs: NetworkInputs) -> None: ...

    def capture(self, compute: Compute) -> None: ...

    def replay(self, inputs: NetworkInputs) -> Residuals: ...

    def discard(self) -> None: ...


class Recorder(Protocol):
    """`cuda_graph.CudaRecorder`, or what stands in for it."""

    def recording(self, device: torch.device) -> bool: ...

    def room(self, device: torch.device) -> int: ...

    def graph(self, inputs: NetworkInputs) -> Graph: ...


def run_network(network: EncoderNetwork, inputs: NetworkInputs) -> tuple[Residuals, str]:
    """One pass of a network on the current stream of its inputs' device, and in words how: `AS_GRAPH`, or "no graph: " and why.

    The residuals are those of `network.residuals`, bit for bit, in memory that is the caller's: parts of one tensor. The first pass of a kind (shapes,
    dtypes, strides and types) is a plain one, the second is recorded, and from then on it is launched as a whole, until the weights move. Raises what
    the pass raises, the host's interruption among it. One thread at a time for one module.
    """
    if inputs.x.device.type != "cuda":
        return called(network, inputs), ""
    graphs = GRAPHS.get(network.module)
    if graphs is None:
        graphs = GRAPHS.setdefault(network.module, Graphs())
    return graphs.run(network, inputs)


def drop_graphs(module: Any = None) -> None:
    """Frees the graphs of a module, or of all. Their next passes are recorded anew."""
    for owner, graphs in list(GRAPHS.items()):
        if module is None or owner is module:
            graphs.drop()


class Graphs:
    """The graphs of one module, which it does not hold on to, at most `MOST_GRAPHS`."""

    def __init__(self, recorder: Callable[[torch.device], Recorder] = CudaRecorder) -> None:
        self._recorder_of = recorder
        self._recorder: Recorder | None = None
        self._watch: Watch | None = None
        self._graphs: OrderedDict[Hashable, tuple[Graph, int]] = OrderedDict()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._refused: dict[Hashable, str] = {}
        self._failed = ""
        self._calls = 0

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, network: EncoderNetwork, inputs: NetworkInputs) -> tuple[Residuals, str]:
        """As `run_network`, on any device that the recorder is for."""
        why = self._why_plain(network, inputs.x.device)
        if not why:
            key = kind_of(network, inputs)
            why = self._ready(key, network, inputs)
        if not why:
            try:
                return self._graphs[key][0].replay(inputs), AS_GRAPH
            except Exception as problem:
                if not comfy.model_management.is_oom(problem):
                    raise
            # Outside of the handler, whose traceback holds on to tensors.
            self.drop()
            why = self._refused[key] = OUT_OF_MEMORY
        return called(network, inputs), f"no graph: {why}"

    def _why_plain(self, network: EncoderNetwork, device: torch.device) -> str:
        """Why no graph of the module may run now; drops those whose weights have moved."""
        if self._failed or network.unrecordable:
            return self._failed or network.unrecordable
        name = attention_name()
        if name not in RECORDABLE_ATTENTION:
            return f"the host's attention cannot be recorded ({name})"
        if self._watch is None or not self._watch.unchanged():
            self.drop()
            self._refused.clear()
            self._watch = None
            why = why_not_resident(network.patcher, network.module, device)
            if why:
                return why
            self._watch = Watch(network.module)
        return ""

    def _ready(self, key: Hashable, network: EncoderNetwork, inputs: NetworkInputs) -> str:
        """Sees to it that there is a graph of this kind; otherwise why not."""
        self._calls += 1
        before = self._seen.pop(key, None)
        self._seen[key] = self._calls
        if len(self._seen) > MOST_KINDS:
            old, _ = self._seen.popitem(last=False)
            self._refused.pop(old, None)
        graph, _ = self._graphs.pop(key, (None, 0))
        if graph is not None and not graph.stale:
            self._graphs[key] = (graph, self._calls)
            return ""
        if graph is not None:
            graph.discard()
        if key in self._refused:
            return self._refused[key]
        if before is None:
            return FIRST_PASS
        if len(self._graphs) >= MOST_GRAPHS:
            # Five kinds in turn would otherwise push each other out at every pass.
            if next(iter(self._graphs.values()))[1] > before:
                return IN_USE
            _, (oldest, _) = self._graphs.popitem(last=False)
            oldest.discard()
        return self._record(key, network, inputs)

    def _record(self, key: Hashable, network: EncoderNetwork, inputs: NetworkInputs) -> str:
        device = inputs.x.device
        if any(tensor.device != device for tensor in tensors_of(inputs)):
            return OTHER_DEVICE
        if self._recorder is None:
            self._recorder = self._recorder_of(device)
        if host_records() or self._recorder.recording(device):
            return HOST_RECORDS
        if self._recorder.room(device) < needed_bytes(network, inputs):
            return NO_ROOM
        graph: Graph | None = None
        recording = False
        try:
            graph = self._recorder.graph(inputs)
            graph.warm_up(lambda static: called(network, static), inputs)
            recording = True
            graph.capture(lambda static: called(network, static))
        except Exception as problem:
            out_of_memory = comfy.model_management.is_oom(problem)
            words = f"recording it failed ({type(problem).__name__}: {str(problem).partition(chr(10))[0]})"
        except BaseException:  # the host's interruption comes from every operation
            if graph is not None:
                graph.discard()
            raise
        else:
            self._graphs[key] = (graph, self._calls)
            drop_when_unloaded(network.patcher)
            return ""
        # Outside of the handler, whose traceback holds on to tensors.
        if graph is not None:
            graph.discard()
        if out_of_memory:
            self.drop()
            words = OUT_OF_MEMORY
        elif recording:
            self._failed = words  # whatever it was would be met by each kind of inputs
        self._refused[key] = words
        return words

    def drop(self) -> None:
        """Frees all graphs; the next pass of each kind is as the first one. What could not be recorded is not tried again before the weights have moved."""
        for graph, _ in self._graphs.values():
            graph.discard()
        self._graphs.clear()
        self._seen.clear()
        self._recorder = None


def kind_of(network: EncoderNetwork, inputs: NetworkInputs) -> Hashable:
    """Equal for passes that launch the same kernels with the same arguments, if the weights are where they were."""
    told = inputs.types or (network.told,)
    tensors = tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors_of(inputs))
    return type(network), network.pooling, network.dtype, told, tensors, inputs.x.device, arithmetic()


def tensors_of(inputs: NetworkInputs) -> tuple[Tensor, ...]:
    given = (inputs.x, inputs.hint_embedding, inputs.timesteps, inputs.context, inputs.y)
    return tuple(tensor for tensor in given if tensor is not None)


def arithmetic() -> Hashable:
    """The switches of this process that decide which kernels torch launches, and the attention function; the host and other extensions turn them."""
    cudnn = torch.backends.cudnn
    return (
        attention_name(),
        id(comfy.ldm.modules.attention.optimized_attention),
        getattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", None),
        cudnn.enabled,
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )


def needed_bytes(network: EncoderNetwork, inputs: NetworkInputs) -> float:
    """What must be free before a recording: running out of memory in one is not something that every allocator survives."""
    rows, _, height, width = inputs.x.shape
    a_pass = activation_bytes(network, rows, height, width)
    return float(2 * a_pass + comfy.model_management.minimum_inference_memory())


def drop_when_unloaded(patcher: Any) -> None:
    """Frees the graphs of a patcher's module when the host takes its weights off the device, at which nobody would call it any more."""
    if not patcher.get_callbacks(CallbacksMP.ON_DETACH, KEY):
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, KEY, unloaded)


def unloaded(patcher: Any, unpatch_all: bool) -> None:
    """The host's callback. With `unpatch_all` false, as before each run, the weights stay where they are."""
    if unpatch_all:
        drop_graphs(patcher.model)
