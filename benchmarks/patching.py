"""Times one patching sweep (every layer, every position): raw hooks, nnsight, TransformerLens, pyvene, this project."""

from __future__ import annotations

import random
import sys
from typing import Any

import benchmark
import machine
from contenders.protocol import Subject
from contenders.shapes import SHAPES, SMOLLM2
from contest import Contender, peer
from options import parser, prompt, read_options

CONTENDERS = (
    Contender("raw_hooks", "raw hooks, one run at a time", "patching.raw_hooks"),
    Contender("raw_rows", "raw hooks, rows of 32", "patching.raw_rows", arguments={"rows": 32}),
    peer("nnsight", "nnsight_one", "nnsight, one trace a run", "patching.nnsight_one"),
    peer("nnsight", "nnsight_32", "nnsight, 32 invokes a trace", "patching.nnsight_many", invokes=32),
    peer("nnsight", "nnsight_128", "nnsight, 128 invokes a trace", "patching.nnsight_many", invokes=128),
    peer("transformer_lens", "transformer_lens", "TransformerLens, rows of 32", "patching.transformer_lens", rows=32),
    peer("pyvene", "pyvene", "pyvene, a layer's positions as rows", "patching.pyvene", rows=32),
    Contender("engine", "ndif_batch, engine alone", "patching.engine"),
    Contender("whole", "ndif_batch, queue to archive", "patching.whole", ("pydantic", "sqlalchemy", "zarr")),
)


def main() -> int:
    """Runs what the command line asks for; ends with 1 if a contender's values differ from those of raw hooks."""
    arguments = parser(__doc__, CONTENDERS)
    arguments.add_argument("--every", type=int, default=1, help="patch every so many-th layer")
    given = arguments.parse_args()
    options = read_options(given)
    subject = options.subject
    work = ioi_work() if subject.shape == SMOLLM2 else random_work(subject)
    tokens = len(work["clean"])
    described = {"runs": len(range(0, subject.layers, given.every)) * tokens, "tokens": tokens}
    if given.every > 1:
        work |= {"every": given.every}
        described |= {"every_layer": given.every}
    benchmark.report("patching", CONTENDERS, options, work, described)
    return 0


def ioi_work() -> dict[str, Any]:
    """The sweep of ``configs/sweeps/ioi_patching.yaml``, with the tokens of SmolLM2 from the model cache."""
    import yaml

    from ndif_batch.config import load_settings
    from ndif_batch.models import demo

    tokenizer = demo.add(load_settings().model_cache).tokenizer
    assert tokenizer is not None
    given = yaml.safe_load((machine.ROOT / "configs/sweeps/ioi_patching.yaml").read_text())["parameters"]
    prompts = {name: list(tokenizer.encode(given[name])) for name in ("clean", "corrupted")}
    return prompts | {name: tokenizer.token(given[name]) for name in ("answer", "distractor")}


def random_work(subject: Subject) -> dict[str, Any]:
    """The same work without meaning: two prompts that differ in one token."""
    source = random.Random(0)
    tokens = SHAPES[subject.shape].tokens
    clean = prompt(source, subject.shape, tokens)
    corrupted = [*clean[: tokens // 2], clean[0], *clean[tokens // 2 + 1 :]]
    return {"clean": clean, "corrupted": corrupted, "answer": 5, "distractor": 7}


if __name__ == "__main__":
    sys.exit(main())
