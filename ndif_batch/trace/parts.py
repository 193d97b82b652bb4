"""The parts of a model's blocks by what they do, whatever a family calls them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from ndif_batch.errors import ModelError
from ndif_batch.trace.modules import Module
from ndif_batch.trace.parameters import Param
from ndif_batch.trace.place import user_place
from ndif_batch.trace.tree import Tree

Paths: TypeAlias = tuple[tuple[str, ...], ...]
"""Where the part can be, below a block: the first of the first entry whose modules are all there."""

ATTENTION_OUTPUTS: Paths = (
    ("post_self_attn_layernorm",),
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("attention.output.dense",),
    *((name,) for name in ("self_attn", "attn", "attention", "self_attention")),
)
"""What attention adds to the residual stream: behind its own norm, where a block has one there."""

OUTPUT_PROJECTIONS: Paths = tuple(
    (path,)
    for path in (
        "self_attn.o_proj",
        "self_attn.out_proj",
        "self_attn.dense",
        "attn.c_proj",
        "attn.out_proj",
        "attn.attention.out_proj",
        "attn.Wo",
        "attention.dense",
        "attention.output.dense",
        "self_attention.dense",
    )
)

MLP_INPUTS: Paths = (("mlp",), ("feed_forward",), ("block_sparse_moe",), ("fc1",), ("intermediate",))

MLP_OUTPUTS: Paths = (
    ("post_mlp_layernorm",),
    ("post_feedforward_layernorm",),
    ("mlp",),
    ("feed_forward",),
    ("block_sparse_moe",),
    ("fc2",),
    ("output.dense",),
)

DOWN_PROJECTIONS: Paths = tuple(
    (path,)
    for path in (
        "mlp.down_proj",
        "mlp.c_proj",
        "mlp.fc2",
        "mlp.fc_out",
        "mlp.dense_4h_to_h",
        "mlp.Wo",
        "feed_forward.down_proj",
        "fc2",
        "output.dense",
    )
)


class Parts:
    """One module of each block: ``lm.mlp_outputs[3]``, ``lm.mlp_outputs[param("layer")]``, ``lm.mlp_outputs[:]``."""

    __slots__ = ("_blocks", "_paths", "_tree", "_what")

    def __init__(self, tree: Tree, blocks: Module, what: str, paths: Paths) -> None:
        self._tree = tree
        self._blocks = blocks
        self._what = what
        self._paths = paths

    def __repr__(self) -> str:
        return f"<{self._what} of {self._blocks!r}>"

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Module]:
        return iter(self[:])

    def __getitem__(self, key: int | slice | Param) -> Any:
        found = self._blocks[key]
        return [self._of(block) for block in found] if isinstance(found, list) else self._of(found)

    def _of(self, block: Module) -> Module:
        for names in self._paths:
            paths = [f"{block._path}.{name}" for name in names]
            if all(map(self._tree.matches, paths)):
                return Module(self._tree, paths[0])
        known = ", ".join(dict.fromkeys(names[0] for names in self._paths))
        where = f" at {known}" if known else ""
        raise ModelError(f"{user_place()}: the model has no {self._what}{where}", hint=f"there is {block!r}")
