"""The command line that every benchmark of the engine shares, and the model and prompts that it asks for."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import machine
from contenders.protocol import LAYERS, TENSOR, Subject
from contenders.shapes import SHAPES, SMOLLM2
from contest import Contender

PEERS = machine.ROOT / ".venv-peers/bin/python"


@dataclass(frozen=True)
class Options:
    """What the command line said. ``only`` are the contenders wanted beside the baseline."""

    subject: Subject
    only: Sequence[str]
    rounds: int
    repeats: int
    peers: Path
    tolerance: float | None
    batch_tokens: int | None
    output: Path | None


def parser(doc: str | None, contenders: Sequence[Contender], shape: str | None = None) -> argparse.ArgumentParser:
    """The shared options; ``shape`` is the default, else SmolLM2 on a CPU and Llama 8B on CUDA."""
    names = [contender.name for contender in contenders]
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--only", nargs="+", choices=names, default=names, help="contenders beside the first")
    made.add_argument("--shape", choices=SHAPES, default=shape, help="random weights, except smollm2")
    made.add_argument("--layers", type=int, help="only the first layers, for a quick try")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--parallel", choices=[LAYERS, TENSOR], help="how a model with random weights is divided")
    made.add_argument("--devices", type=int, default=2, help="over how many GPUs, or processes on a CPU")
    made.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32, bfloat16 on CUDA")
    made.add_argument("--threads", type=int, default=machine.cores())
    made.add_argument("--rounds", type=int, default=3, help="processes of each contender, in turn")
    made.add_argument("--repeats", type=int, default=1, help="measurements in each process, if they are short")
    made.add_argument("--peers", type=lambda path: Path(path).absolute(), default=PEERS, help=_PEERS_HELP)
    made.add_argument("--tolerance", type=float, help="largest deviation, as a share of the largest value")
    made.add_argument("--batch-tokens", type=int, help="the engine's max_batch_tokens")
    made.add_argument("--output", type=Path, help="default: benchmarks/results/<benchmark>-<shape>-<machine>.json")
    return made


_PEERS_HELP = "a Python that has the other libraries, or a folder of packages for this Python"


def read_options(given: argparse.Namespace) -> Options:
    """The options with the model that they name."""
    subject = make_subject(
        given.shape or (SMOLLM2 if given.device == "cpu" else "llama-8b"),
        given.layers,
        given.dtype or ("float32" if given.device == "cpu" else "bfloat16"),
        given.device,
        given.threads,
    )
    if given.parallel is not None:
        subject = replace(subject, parallel=given.parallel, devices=given.devices)
    return Options(
        subject,
        given.only,
        given.rounds,
        given.repeats,
        given.peers,
        given.tolerance,
        given.batch_tokens,
        given.output,
    )


def make_subject(shape: str, layers: int | None, dtype: str, device: str, threads: int) -> Subject:
    """A model to measure; SmolLM2 is fetched into the model cache the first time."""
    layers = min(layers or SHAPES[shape].layers, SHAPES[shape].layers)
    if shape != SMOLLM2:
        return Subject(shape, layers, dtype, device, threads)
    from ndif_batch.config import load_settings
    from ndif_batch.models import demo

    info = demo.add(load_settings().model_cache)
    return Subject(shape, layers, dtype, device, threads, str(info.weights), str(info.directory))


def prompt(source: random.Random, shape: str, tokens: int) -> list[int]:
    """A prompt of random words."""
    return [source.randrange(3, SHAPES[shape].vocabulary) for _ in range(tokens)]


def command() -> str:
    """How this benchmark was called."""
    return " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(machine.ROOT)), *sys.argv[1:]])
