"""The meaning of a graph, as plainly as it can be written: one task, one run at a time, raw forward hooks.

Every run is one forward pass of the Hugging Face model over its own tokens, or tensors. At each site the hooks do the
run's reads and writes in program order. Where a value of one run is needed in another, everything is run again until
nothing changes any more. There is no packing, no planning and no sharing: everything else is compared with this.

Gradients are autograd's, by what the site handed on when it was read. A run that was done over has handed on several
tensors that stand for the same value: the gradient by it is the sum of those by each.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.masking_utils import eager_mask

from ndif_batch.engine.kernels import KERNELS
from ndif_batch.graph.nodes import Graph, Inputs, Node, NodeRef, SliceArg, TensorRef, inputs
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.sites import ATTENTION
from ndif_batch.graph.steps import Choice, choice_of, generations, steps_of
from ndif_batch.models.tokenizer import concrete
from ndif_batch.sweep.task import Task
from tests.families import Subject


class Unknown(Exception):  # noqa: N818  not an error
    """A value is not known yet; a later round will have it."""


class Restless(AssertionError):  # noqa: N818
    """Runs that depend on each other in a circle."""


class Oracle:
    """Runs one task on one model."""

    def __init__(self, model: Any, graph: Graph, seed: int, constants: Mapping[str, torch.Tensor]) -> None:
        self.model = model
        self.graph = graph
        self.seed = seed
        self.constants = constants
        self.reads: dict[int, Any] = {}
        self.views: dict[int, dict[int, Any]] = {}
        self.tokens: dict[int, list[int]] = {}
        self.generations = generations(graph)
        self.step = 0
        self.skipped = False
        self.nothing: dict[str, Any] = {}
        self.writing: Node | None = None
        self.handed_on: dict[int, list[Any]] = {}
        self.differentiates = any(node.op == "grad" for node in graph.nodes)
        self.applying = False

    def saves(self) -> dict[str, torch.Tensor]:
        """What the task saves."""
        for _ in range(len(self.graph.nodes) + 2):
            before, tokens = dict(self.reads), dict(self.tokens)
            self.skipped = False
            for run in range(len(self.graph.runs)):
                self.forward(run)
            known = before.keys() == self.reads.keys() and tokens == self.tokens
            if known and all(same(before[i], self.reads[i]) for i in before):
                break
        else:
            raise Restless("the graph has no meaning: its runs never come to rest")
        saved = {}
        for node in self.graph.nodes:
            if node.op == "save":
                value = self.evaluate(node.args[0])
                tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                saved[str(node.name)] = tensor.detach().clone()
        return saved

    def forward(self, run: int) -> None:
        """One pass of one run, alone."""
        handles = []
        paths = {plain_site(node) for node in self.graph.nodes if node.run == run}
        inside = {path for path in paths if path.rpartition(".")[2] in ATTENTION}
        native = self.model.config._attn_implementation if inside else None
        if inside:
            AttentionInterface.register("oracle", self.attention(run))
            AttentionMaskInterface.register("oracle", eager_mask)
            self.model.set_attn_implementation("oracle")
        for path in paths - inside:
            module = self.model.get_submodule(path.rpartition(".")[0])
            if path.endswith(".input"):
                handles.append(module.register_forward_pre_hook(self.pre_hook(run, path), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(self.hook(run, path)))
        try:
            with torch.set_grad_enabled(self.differentiates):
                prompt = self.graph.runs[run].prompt
                if isinstance(prompt, Inputs):
                    self.model(**{name: self.constants[digest] for name, digest in prompt.digests.items()})
                    return
                ids = torch.tensor([prompt])
                if run in self.generations:
                    self.generate(run, ids)
                    return
                start = self.model.config.decoder_start_token_id if self.model.config.is_encoder_decoder else None
                decoder = {} if start is None else {"decoder_input_ids": torch.tensor([[start]])}
                self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **decoder)
        finally:
            for handle in handles:
                handle.remove()
            if inside:
                self.model.set_attn_implementation(native)

    def attention(self, run: int) -> Any:
        """Attention written out, with the sites inside it."""
        paths = {id(module): path for path, module in self.model.named_modules()}

        def attend(
            module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **options: Any
        ) -> tuple[torch.Tensor, None]:
            path = paths[id(module)]
            query, key, value = (
                self.at_site(run, f"{path}.{name}", tensor)
                for name, tensor in zip(ATTENTION, (query, key, value), strict=False)
            )
            each = query.shape[1] // key.shape[1]
            logits = query @ key.repeat_interleave(each, 1).transpose(2, 3)
            logits = logits * (query.shape[-1] ** -0.5 if scaling is None else scaling)
            if options.get("softcap") is not None:
                logits = (logits / options["softcap"]).tanh() * options["softcap"]
            logits = logits if mask is None else logits + mask
            if options.get("s_aux") is not None:
                logits = torch.cat([logits, options["s_aux"].reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)], -1)
            weights = logits.softmax(-1)[..., : key.shape[2]]
            weights = self.at_site(run, f"{path}.pattern", weights)
            heads = (weights @ value.repeat_interleave(each, 1)).transpose(1, 2)
            return self.at_site(run, f"{path}.heads", heads), None

        return attend

    def generate(self, run: int, ids: torch.Tensor) -> None:
        """A pass over the prompt, then one over each token that the pass before it has chosen."""
        own = self.generations[run]
        choice = choice_of(self.graph.nodes[own.node], {})
        self.tokens[run] = []
        self.views |= {i: {} for i, node in enumerate(self.graph.nodes) if node.op == "read" and node.run == run}
        inside = self.model.config._attn_implementation == "oracle"
        cache: dict[str, Any] = {"past_key_values": DynamicCache()} if inside else {}  # which forgets nothing
        seen, given = ids, ids
        for self.step in range(own.count):
            mask = torch.ones_like(seen)
            prepared: Any = self.model.prepare_inputs_for_generation
            inputs = prepared(given, attention_mask=mask, use_cache=True, is_first_iteration=seen is ids, **cache)
            out = self.model(**inputs)
            name = "cache_params" if "cache_params" in out else "past_key_values"
            cache = {name: out[name]}
            given = self.chosen(out.logits[0, -1], choice, own.node)[None]
            seen = torch.cat([seen, given], 1)
            self.tokens[run].append(int(given))
            if int(given) in choice.stop:
                break
        self.step = 0
        for i, node in enumerate(self.graph.nodes):
            if node.op == "read" and node.run == run:
                self.reads.pop(i, None)
                views = [self.views[i][step] for step in steps_of(node.step, own.count) if step in self.views[i]]
                if isinstance(node.step, SliceArg):
                    self.reads[i] = side_by_side(views or [self.nothing[plain_site(node)]])
                elif views:
                    self.reads[i] = views[0]

    def chosen(self, logits: torch.Tensor, choice: Choice, node: int) -> torch.Tensor:
        if choice.greedy:
            return logits.float().argmax(-1, keepdim=True)
        scores = logits.float()[None]
        warpers = [
            TemperatureLogitsWarper(choice.temperature) if choice.temperature else None,
            TopKLogitsWarper(choice.top_k) if choice.top_k else None,
            TopPLogitsWarper(choice.top_p) if choice.top_p and choice.top_p < 1 else None,
        ]
        for warper in warpers:
            scores = scores if warper is None else warper(None, scores)
        seed = int.from_bytes(blake2b(f"{self.seed}/{node}/{self.step}".encode(), digest_size=7).digest())
        return torch.multinomial(scores.softmax(-1), 1, generator=torch.Generator().manual_seed(seed))[0]

    def pre_hook(self, run: int, path: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (self.at_site(run, path, args[0]), *args[1:]), kwargs
            first = next(iter(kwargs))
            return args, {**kwargs, first: self.at_site(run, path, kwargs[first])}

        return hook

    def hook(self, run: int, path: str) -> Any:
        return lambda module, args, output: self.at_site(run, path, output)

    def at_site(self, run: int, path: str, value: Any) -> Any:
        """The run's reads and writes at one site, in program order. A ``call`` of a module touches no site."""
        if self.applying:
            return value
        value = self.differentiable(value)
        self.nothing[path] = no_tokens(value)
        for i, node in enumerate(self.graph.nodes):
            if node.run != run or plain_site(node) != path or self.step not in self.steps(node):
                continue
            if node.op == "read":
                self.views.setdefault(i, {})[self.step] = copied(value)
                if not isinstance(node.step, SliceArg):
                    self.reads[i] = copied(value)
                self.handed_on.setdefault(i, []).append(value)
            elif node.op in ("write", "skip"):
                self.writing = node
                try:
                    index = tuple(self.evaluate(part) for part in node.index or ())
                    value = self.differentiable(overwritten(value, index, self.evaluate(node.args[0])))
                except Unknown:
                    self.skipped = True
                    continue
                finally:
                    self.writing = None
        return copied(value) if self.differentiates else value  # some models change what a module gave

    def steps(self, node: Node) -> range:
        own = self.generations.get(-1 if node.run is None else node.run)
        return steps_of(node.step, 1 if own is None else own.count)

    def differentiable(self, value: Any) -> Any:
        """A copy that belongs to this site alone, by which can be differentiated."""
        if not self.differentiates:
            return value
        if isinstance(value, tuple | list):
            return type(value)(self.differentiable(item) for item in value)
        if not isinstance(value, torch.Tensor):
            return value
        value = value.clone()
        return value.requires_grad_() if value.is_floating_point() else value

    def gradient(self, read: int, backward: int) -> Any:
        """Of the scalar of a ``backward`` by what the site handed on at a ``read``."""
        scalar = self.evaluate(self.graph.nodes[backward].args[0])
        if read not in self.handed_on:
            raise Unknown
        if scalar.numel() != 1 or not scalar.is_floating_point():
            raise ValueError("backward needs one floating-point number")
        found = [self.derivative(scalar, value) for value in self.handed_on[read]]
        return found[0] if len(found) == 1 else summed(found)

    def derivative(self, scalar: torch.Tensor, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(self.derivative(scalar, item) for item in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return None
        if not scalar.requires_grad:
            return torch.zeros_like(value)
        found = torch.autograd.grad(scalar.sum(), value, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(value) if found is None else found

    def evaluate(self, arg: Any) -> Any:
        """The value of an argument."""
        if isinstance(arg, NodeRef):
            return self.node_value(arg.node)
        if isinstance(arg, TensorRef):
            return self.constants[arg.digest]
        if isinstance(arg, SliceArg):
            return slice(self.evaluate(arg.start), self.evaluate(arg.stop), self.evaluate(arg.step))
        if isinstance(arg, tuple):
            return tuple(self.evaluate(item) for item in arg)
        return arg

    def node_value(self, i: int) -> Any:
        node = self.graph.nodes[i]
        if node.op == "tokens":
            if node.run not in self.tokens:
                raise Unknown
            return torch.tensor(self.tokens[node.run])
        if node.op == "read":
            writing = self.writing
            if writing and isinstance(node.step, SliceArg) and (writing.run, writing.step) == (node.run, node.step):
                if self.step not in self.views.get(i, {}):
                    raise Unknown
                return self.views[i][self.step]
            if i not in self.reads:
                raise Unknown
            return self.reads[i]
        if node.op == "weight":
            return self.model.get_parameter(str(node.site)).detach()
        if node.op == "grad":
            return self.gradient(*inputs(node))
        args = [self.evaluate(arg) for arg in node.args]
        if node.op == "call":
            self.applying = True
            with torch.set_grad_enabled(self.differentiates):
                result = self.model.get_submodule(str(node.site))(*args)
            self.applying = False
            return result
        keywords = {name: self.evaluate(arg) for name, arg in node.kwargs}
        if OPERATIONS[node.op].random:
            seed = int.from_bytes(blake2b(f"{self.seed}/{i}".encode(), digest_size=7).digest())
            keywords["generator"] = torch.Generator().manual_seed(seed)
        return KERNELS[node.op](*args, **keywords)


def plain_site(node: Node) -> str:
    return f"{node.site}.output" if node.op == "skip" else str(node.site)


def overwritten(value: Any, index: tuple[Any, ...], new: Any) -> Any:
    if isinstance(value, tuple | list):
        if not index:
            return new
        items = list(value)
        items[index[0]] = overwritten(items[index[0]], index[1:], new)
        return type(value)(items)
    value = value.clone()
    value[index if index else ...] = new
    return value


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return tuple(copied(item) for item in value) if isinstance(value, tuple | list) else value


def side_by_side(values: list[Any]) -> Any:
    """What the steps give, joined along the tokens: the axis that differs, or the last but one."""
    if isinstance(values[0], tuple):
        return tuple(side_by_side(list(items)) for items in zip(*values, strict=True))
    first = values[0]
    if not isinstance(first, torch.Tensor) or any(value.shape[-1] != first.shape[-1] for value in values):
        return None
    return torch.cat(values, -2)


def no_tokens(value: Any) -> Any:
    """What a site holds, without tokens."""
    if isinstance(value, tuple | list):
        return tuple(no_tokens(item) for item in value)
    return value[..., :0, :] if isinstance(value, torch.Tensor) and value.ndim > 1 else None


def summed(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(summed(list(items)) for items in zip(*values, strict=True))
    return None if values[0] is None else torch.stack(values).sum(0)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30))
    return all(same(x, y) for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else True


def oracle(
    subject: Subject, task: Task, constants: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """What ``task`` would save alone."""
    return oracle_of(subject, task, constants).saves()


def oracle_of(subject: Subject, task: Task, constants: Mapping[str, torch.Tensor] | None = None) -> Oracle:
    """What tells what ``task`` would save alone; ``skipped`` afterwards says that a write took an unknown step."""
    graph = concrete(task.graph, task.bindings, subject.loaded.tokenizer, subject.loaded.sites)
    return Oracle(subject.native, graph, task.seed, constants or {})


def assert_equal(
    name: str, ours: torch.Tensor, truth: torch.Tensor, tolerance: float = 1e-4, least: float = 1e-3
) -> None:
    """Equal shapes, dtypes, places of NaN and infinities; values within ``tolerance`` of the largest.

    Differences of equal values are rounding alone, so the largest counts as at least ``least``.
    """
    assert ours.shape == truth.shape, f"{name}: shape {tuple(ours.shape)} is not {tuple(truth.shape)}"
    assert ours.dtype == truth.dtype, f"{name}: {ours.dtype} is not {truth.dtype}"
    if not truth.is_floating_point():
        assert torch.equal(ours, truth), f"{name}: values differ"
        return
    finite = torch.isfinite(truth)
    assert torch.equal(torch.isnan(ours), torch.isnan(truth)), f"{name}: NaN in other places"
    assert torch.equal(ours[~finite].nan_to_num(), truth[~finite].nan_to_num()), f"{name}: infinities differ"
    worst = deviation(ours, truth, least)
    assert worst <= tolerance, f"{name}: off by {worst:.2e} of the largest value"


def deviation(ours: torch.Tensor, truth: torch.Tensor, least: float = 1e-3) -> float:
    """The largest difference as a share of the largest value, which counts as at least ``least``."""
    finite = torch.isfinite(truth)
    if not truth.is_floating_point() or not finite.any():
        return 0.0
    scale = truth[finite].abs().max().clamp(min=least)
    return float((ours[finite].double() - truth[finite].double()).abs().max() / scale)
