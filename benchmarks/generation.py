"""Times 256 prompts continued by 64 tokens with one layer saved at every step, beside the same without saving."""

from __future__ import annotations

import random
import sys

import benchmark
from contest import Contender, peer
from options import parser, prompt, read_options

CONTENDERS = (
    Contender("hf", "Hugging Face, padded rows, second pass", "generation.hugging_face"),
    peer("nnsight", "nnsight", "nnsight, generate, many invokes", "generation.nnsight_generate"),
    Contender("engine", "ndif_batch, engine alone", "generation.engine"),
)
ROWS = {"cpu": 32, "cuda": 256}


def main() -> int:
    """Runs what the command line asks for; ends with 1 if values differ from those of Hugging Face."""
    arguments = parser(__doc__, CONTENDERS)
    arguments.add_argument("--prompts", type=int, default=256)
    arguments.add_argument("--tokens", type=int, nargs=2, default=(8, 128), help="shortest and longest prompt")
    arguments.add_argument("--steps", type=int, default=64, help="tokens that are generated")
    arguments.add_argument("--layer", type=int, help="which one is read (default: the middle one)")
    arguments.add_argument("--rows", type=int, help="prompts that a peer pads and runs together")
    given = arguments.parse_args()
    options = read_options(given)
    source = random.Random(0)
    prompts = [prompt(source, options.subject.shape, source.randint(*given.tokens)) for _ in range(given.prompts)]
    layer = max(options.subject.layers // 2 - 1, 0) if given.layer is None else given.layer
    rows = given.rows or ROWS[given.device]
    described = {"prompts": given.prompts, "shortest": given.tokens[0], "longest": given.tokens[1]}
    described |= {"steps": given.steps, "layer": layer, "rows": rows, "tokens": sum(map(len, prompts))}
    work = {"prompts": prompts, "layer": layer, "steps": given.steps, "rows": rows}
    benchmark.report("generation", CONTENDERS, options, work, described)
    return 0


if __name__ == "__main__":
    sys.exit(main())
