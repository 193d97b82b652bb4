"""A language model to record experiments on: its modules by name, without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ndif_batch.errors import ModelError
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import parts
from ndif_batch.trace.backend import Backend
from ndif_batch.trace.experiment import Edit, Scan, Session, Trace
from ndif_batch.trace.generation import Generates
from ndif_batch.trace.modules import Module, blocks_of, found_in
from ndif_batch.trace.parts import Parts
from ndif_batch.trace.tree import Tree

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
"""What they call the norm after the last block, beside the blocks."""

UNEMBEDDINGS = ("lm_head", "embed_out")


class LanguageModel(Module):
    """The modules of ``info`` by attribute, as in PyTorch: ``lm.model.layers[3].mlp.output``.

    ``backend`` carries out what is recorded; without one, experiments can only be recorded and scanned.
    """

    __slots__ = ("_edits", "backend", "info")

    info: ModelInfo
    backend: Backend | None
    _edits: tuple[Edit, ...]

    def __init__(self, info: ModelInfo, backend: Backend | None = None) -> None:
        super().__init__(Tree(info.sites), "")
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "_edits", ())

    @contextmanager
    def edit(self) -> Iterator[LanguageModel]:
        """Records writes that are kept: ``with lm.edit() as edited: lm.model.layers[3].mlp.output[:] = 0``.

        Every run of every trace of ``edited`` begins with them, at each step if it generates. ``lm`` stays as it is.
        """
        made = LanguageModel(self.info, self.backend)
        object.__setattr__(made, "_tree", self._tree)
        with Edit(self.info, self._tree) as edit:
            object.__setattr__(made, "_edits", (*self._edits, edit))
            yield made

    def trace(self, prompt: Any = None) -> Trace:
        """Records an experiment: ``with lm.trace(prompt) as t:`` of one run, ``with lm.trace() as t:`` of several.

        ``prompt`` is text, token ids or a parameter; runs of a trace without one begin with ``t.invoke(prompt)``.
        """
        return Trace(self.info, self._tree, prompt, self.backend, edits=self._edits)

    def generate(
        self,
        prompt: Any = None,
        *,
        max_new_tokens: int,
        temperature: Any = None,
        top_k: Any = None,
        top_p: Any = None,
        stop: Any = None,
    ) -> Trace:
        """Records an experiment whose runs generate: ``with lm.generate(prompt, max_new_tokens=20) as t:``.

        The likeliest token is taken, or one is drawn if ``temperature``, ``top_k`` or ``top_p`` (numbers or parameters)
        say how; what is drawn depends on the task's seed alone. A run ends after ``max_new_tokens`` tokens, or after
        one of ``stop``: token ids, or the text of single tokens. Sites are touched at step 0, the prompt's own pass,
        unless ``t.iter`` says otherwise; ``t.tokens`` is what was generated.
        """
        generates = Generates(max_new_tokens, temperature, top_k, top_p, stop)
        return Trace(self.info, self._tree, prompt, self.backend, generates, self._edits)

    def session(self) -> Session:
        """Records several traces as one experiment: ``with lm.session() as s:``, and traces inside.

        What an earlier trace has read or computed can be used in a later one. All of it is one graph, of which
        ``s.run(…)`` and ``s.submit(…)`` make tasks: nothing leaves the worker between the traces.
        """
        return Session(self.info, self._tree, self.backend, self._edits)

    def decode(self, tokens: Any) -> str:
        """The text of token ids, such as those that a run has generated."""
        if self.info.tokenizer is None:
            raise ModelError("the model has no tokenizer")
        return self.info.tokenizer.decode([int(token) for token in tokens])

    def scan(self, prompt: Any = None) -> Scan:
        """Like :meth:`trace`, to look around: inside the block ``.shape`` and ``.dtype`` are known, nothing is kept."""
        return Scan(self.info, self._tree, prompt)

    @property
    def blocks(self) -> Module:
        """The list of the model's blocks, whatever the family calls it; ``ModelError`` if there is none."""
        return blocks_of(self._tree)

    @property
    def attentions(self) -> Parts:
        """Of each block the module inside which attention is computed: ``.pattern`` and ``.heads`` are its sites."""
        inside = f"{self.blocks._path}."
        heads = (site for site in self.info.sites.sites if site.startswith(inside) and site.endswith(".heads"))
        below = (site[len(inside) :].partition(".")[2].removesuffix(".heads") for site in heads)
        return self._parts("attention with sites inside", tuple((name,) for name in dict.fromkeys(below)))

    @property
    def attention_outputs(self) -> Parts:
        """Of each block the module whose ``.residual`` is what attention adds to the residual stream."""
        return self._parts("attention", parts.ATTENTION_OUTPUTS)

    @property
    def output_projections(self) -> Parts:
        """Of each block the module whose input is the heads side by side, and that mixes them."""
        return self._parts("output projection of attention", parts.OUTPUT_PROJECTIONS)

    @property
    def mlp_inputs(self) -> Parts:
        """Of each block the module whose input is what the MLP reads."""
        return self._parts("MLP", parts.MLP_INPUTS)

    @property
    def mlp_outputs(self) -> Parts:
        """Of each block the module whose ``.residual`` is what the MLP adds to the residual stream.

        It is ``[1, tokens, hidden]``, in OPT ``[tokens, hidden]``: index it as ``[..., position, :]``.
        """
        return self._parts("MLP", parts.MLP_OUTPUTS)

    @property
    def down_projections(self) -> Parts:
        """Of each block the module whose input is the MLP's neurons; ``ModelError`` if experts keep theirs inside."""
        return self._parts("neurons", parts.DOWN_PROJECTIONS)

    @property
    def final_norm(self) -> Module:
        """The norm between the last block and the unembedding."""
        beside, _, _ = self.blocks._path.rpartition(".")
        return found_in(self._tree, "final norm", tuple(f"{beside}.{name}" for name in FINAL_NORMS))

    @property
    def unembedding(self) -> Module:
        """The module that gives the logits."""
        head = self.info.sites.head
        return found_in(self._tree, "unembedding", UNEMBEDDINGS if head is None else (head,))

    def _parts(self, what: str, paths: parts.Paths) -> Parts:
        return Parts(self._tree, self.blocks, what, paths)
