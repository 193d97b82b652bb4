"""Times the reading of one layer at the last token of 256 prompts: Hugging Face, nnsight, this project."""

from __future__ import annotations

import random
import sys

import benchmark
from contest import Contender, peer
from options import parser, prompt, read_options

CONTENDERS = (
    Contender("hf_loop", "Hugging Face, one prompt at a time", "extraction.hf_loop"),
    peer("nnsight", "nnsight_stop", "nnsight, one trace a prompt, stop()", "extraction.nnsight_stop"),
    peer("nnsight", "nnsight_32", "nnsight, 32 invokes a trace, sorted", "extraction.nnsight_many", invokes=32),
    Contender("engine", "ndif_batch, engine alone", "extraction.engine"),
)


def main() -> int:
    """Runs what the command line asks for; ends with 1 if values differ from those of Hugging Face."""
    arguments = parser(__doc__, CONTENDERS)
    arguments.add_argument("--prompts", type=int, default=256)
    arguments.add_argument("--tokens", type=int, nargs=2, default=(8, 128), help="shortest and longest prompt")
    arguments.add_argument("--layer", type=int, help="which one is read (default: the middle one)")
    given = arguments.parse_args()
    options = read_options(given)
    source = random.Random(0)
    prompts = [prompt(source, options.subject.shape, source.randint(*given.tokens)) for _ in range(given.prompts)]
    layer = max(options.subject.layers // 2 - 1, 0) if given.layer is None else given.layer
    described = {"prompts": given.prompts, "shortest": given.tokens[0], "longest": given.tokens[1]}
    described |= {"layer": layer, "tokens": sum(map(len, prompts))}
    benchmark.report("extraction", CONTENDERS, options, {"prompts": prompts, "layer": layer}, described)
    return 0


if __name__ == "__main__":
    sys.exit(main())
