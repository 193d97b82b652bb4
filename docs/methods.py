"""Writes the page of methods: what the jobs of the catalogue do, pictures of their sweeps, what runs on which family.

``python docs/methods.py`` writes the page; ``python docs/methods.py pictures [JOB…]`` runs the sweeps first, through
the command line, and draws what they save.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE, PICTURES = HERE / "methods.md", HERE / "pictures" / "methods"
NOTE = "<!-- Written by `make docs`. Change the code, not this page. -->"
COLOURS = 48

INTRODUCTION = """\
What the jobs of the [catalogue](../jobs/README.md) do and where the methods come from. Each has a sweep on SmolLM2;
each job's docstring says what its parameters and saves mean. Run one with

```sh
ndif-batch sweep run configs/sweeps/logit_lens.yaml --wait --worker
ndif-batch results show 1 --save target_log_prob --plot logit_lens.png
```

Any other model takes its place under `model:`. Jobs find the parts of a model by what they do, so that they need no
names of modules; where a model lacks the part, the job says so when the sweep is planned."""

TABLE = """\
## Families

A random model of each family runs tasks of all methods together (`tests/engine/test_catalogue_against_oracle.py`).
**equal**: every task saves what a plain forward pass with hooks gives for it alone, within 1e-4. Where a method cannot
be applied, the cell has the reason that its user is told."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Reading": (
        "logit_lens",
        "tuned_lens",
        "direct_logit_attribution",
        "patchscopes",
        "representation_reading",
        "attention_patterns",
        "induction_scores",
        "cache_residuals",
        "probe_data",
    ),
    "Patching": (
        "activation_patching",
        "component_patching",
        "head_patching",
        "neuron_patching",
        "path_patching",
        "causal_tracing",
    ),
    "Ablation": ("ablation", "mean_ablation", "head_ablation"),
    "Gradients": ("attribution_patching", "integrated_gradients"),
    "Steering": (
        "steering",
        "steering_generation",
        "difference_of_means",
        "contrastive_activation_addition",
        "function_vectors",
    ),
    "Dictionaries": ("sae_features", "sae_splice", "sae_steering", "transcoder"),
}

DRAWN: Mapping[str, str] = {
    "ablation": "--save zero",
    "activation_patching": "",
    "attention_patterns": "--save pattern --at layer=22 --at head=4",
    "attribution_patching": "--save attribution --at point=0",
    "causal_tracing": "--save restored --mean seed",
    "component_patching": "--save attention",
    "contrastive_activation_addition": "--save logit_diff",
    "direct_logit_attribution": "--save attention",
    "function_vectors": "--save answer_log_prob",
    "head_ablation": "--save zero",
    "head_patching": "",
    "induction_scores": "--save induction --mean prompt",
    "integrated_gradients": "--save attribution",
    "logit_lens": "--save target_log_prob",
    "mean_ablation": "--save mlp",
    "neuron_patching": "--save logit_diff",
    "patchscopes": "--save answer_log_prob",
    "path_patching": "--save direct",
    "representation_reading": "--save score --at layer=20",
    "sae_features": "--save features --mean token",
    "sae_splice": "--save divergence",
    "sae_steering": "--save answer_log_prob",
    "steering": "--save logit_diff",
    "transcoder": "--save divergence",
    "tuned_lens": "--save target_log_prob",
}
"""What of a sweep's result is drawn; of vectors and texts, nothing."""


def page(table: str) -> str:
    """The whole page; ``table`` is that of :func:`applicability`."""
    parts = [f"{NOTE}\n\n# Methods\n", f"{INTRODUCTION}\n", f"{TABLE}\n\n{table}"]
    for group, jobs in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_section(job) for job in jobs]
    return "\n".join(parts)


def applicability() -> str:
    """The table of methods and families, as running them says."""
    from tests.catalogue import FAMILIES, METHODS, applied, cell

    rows = [("method", *FAMILIES), ("---",) * (len(FAMILIES) + 1)]
    rows += [(method, *(cell(applied(name)[method]) for name in FAMILIES)) for method in METHODS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sweep_of(job: str) -> Path:
    """The sweep that shows a job."""
    files = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
    return next(path for path in files if yaml.safe_load(path.read_text()).get("job") == f"jobs/{job}.py")


def _section(job: str) -> str:
    text = ast.get_docstring(ast.parse((ROOT / "jobs" / f"{job}.py").read_text())) or ""
    title, *paragraphs = text.replace("``", "`").split("\n\n")
    name, _, summary = title.partition(": ")
    sweep = sweep_of(job)
    links = f"[`jobs/{job}.py`](../jobs/{job}.py), [`{sweep.name}`](../configs/sweeps/{sweep.name})"
    said = [f"### {name}\n", f"{summary[0].upper()}{summary[1:]}\n", *(f"{paragraph}\n" for paragraph in paragraphs)]
    if (PICTURES / f"{job}.png").is_file():
        what = f"`ndif-batch results show JOB {DRAWN[job]}`".replace(" `", "`")
        said.append(f"![{name}](pictures/methods/{job}.png)\n\n{what}\n")
    return "\n".join([*said[:2], f"{links}\n", *said[2:]])


def draw(jobs: list[str]) -> None:
    """Runs the sweeps of jobs and draws each, with a worker and a queue of their own."""
    with TemporaryDirectory() as folder:
        os.environ["NDIF_BATCH_DATA_DIR"] = folder
        from ndif_batch import Client
        from ndif_batch.models import demo
        from ndif_batch.queue import schema

        with Client() as client:
            schema.upgrade(client.settings.database)
            client.add_model(str(demo.fetch(client.settings.model_cache)), demo.NAME)
            with client.local_worker(demo.NAME):
                for job in jobs:
                    _draw(job)


def _draw(job: str) -> None:
    from PIL import Image

    number = _told("sweep", "run", str(sweep_of(job)), "--wait", "--parsable").split()[0]
    path = PICTURES / f"{job}.png"
    path.parent.mkdir(exist_ok=True)
    _told("results", "show", number, *DRAWN[job].split(), "--plot", str(path))
    small = Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _told(*arguments: str) -> str:
    from ndif_batch.cli.main import main

    told = StringIO()
    with redirect_stdout(told):
        code = main(list(arguments))
    if code:
        raise SystemExit(f"ndif-batch {' '.join(arguments)} ended with {code}")
    return told.getvalue()


if __name__ == "__main__":
    if sys.argv[1:2] == ["pictures"]:
        draw(sys.argv[2:] or list(DRAWN))
    PAGE.write_text(page(applicability()))
