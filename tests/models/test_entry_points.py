"""Models that an installed package registers: added by their name, run as the package makes them, never mistaken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ndif_batch import Client, ConflictError, IntegrityError, ModelError, NotFoundError, UsageError, param, worker
from ndif_batch.models.entry_points import registered
from ndif_batch.queue import schema
from tests import toy

PACKAGE = """
import torch
from torch import nn

SCALE = 1.0


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.table = nn.Embedding(5, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, row, kind):
        return self.last(torch.tanh(self.first(row) + self.table(kind)))


def odd():
    torch.manual_seed(0)
    module = Odd()
    with torch.no_grad():
        module.last.weight.mul_(SCALE)
    return module, {"row": torch.ones(1, 3), "kind": torch.tensor([2])}


def nothing():
    return None


def broken():
    raise RuntimeError("the weights are gone")


def without_batch():
    return Odd(), {"row": torch.ones(3), "kind": torch.tensor(2)}
"""
NAMES = ("odd", "nothing", "broken", "without_batch")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, as far as Python can tell."""
    site = tmp_path / "site"
    about = site / "odd_models-1.2.dist-info"
    about.mkdir(parents=True)
    (site / "odd_models.py").write_text(PACKAGE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-models\nVersion: 1.2\n")
    names = "".join(f"{name} = odd_models:{name}\n" for name in NAMES)
    (about / "entry_points.txt").write_text(f"[ndif_batch.models]\n{names}")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("odd_models", None)


@pytest.fixture
def client(tmp_path: Path, package: Path) -> Iterator[Client]:
    settings = toy.settings(tmp_path)
    schema.upgrade(settings.database)
    with Client(settings) as made:
        yield made


def test_a_registered_module_runs_through_queue_and_archive(client: Client) -> None:
    info = client.add_model("entry:odd", "odd")
    assert info.revision == f"1.2-{info.digest[:12]}"
    lm = client.language_model("odd")
    with lm.trace() as t:
        with t.invoke(param("one")):
            held = lm.first.output
        with t.invoke(param("other")):
            lm.first.output = held * param("factor")
            lm.last.output[0].save("out")
    rows = [torch.tensor([[0.5, -1.0, float(i)]]) for i in range(3)]
    kinds = [torch.tensor([i]) for i in range(3)]
    items = [{"row": row, "kind": kind} for row, kind in zip(rows, kinds, strict=True)]
    job = t.submit(grid={"one": items, "factor": [1.0, -2.0]}, other=items[0])
    worker.run(client.settings, "odd", device="cpu", until_idle=True)
    out = job.wait(timeout=60).results()["out"]
    module = registered("entry:odd").module
    assert out.shape == (3, 2, 2)
    for i, row in enumerate(rows):
        for j, factor in enumerate((1.0, -2.0)):
            hidden = module.get_submodule("first")(row) * factor + module.get_submodule("table")(kinds[0])
            truth = module.get_submodule("last")(torch.tanh(hidden))[0].detach()
            torch.testing.assert_close(torch.tensor(out[i, j]), truth, rtol=1e-4, atol=1e-5)


def test_other_weights_than_those_that_were_added_are_not_run(client: Client) -> None:
    first = client.add_model("entry:odd", "odd")
    lm = client.language_model("odd")
    item = {"row": torch.ones(1, 3), "kind": torch.tensor([1])}
    sys.modules["odd_models"].SCALE = 2.0  # type: ignore[attr-defined]
    with lm.trace(item) as t:
        lm.last.output.save("out")
    with pytest.raises(IntegrityError, match="has other weights here than where it was added"):
        t.run()
    with pytest.raises(ConflictError, match="exists with other weights"):
        client.add_model("entry:odd", "odd")
    assert client.model_info("odd").digest == first.digest
    assert client.add_model("entry:odd", "odder").digest != first.digest
    again = client.language_model("odder")
    with again.trace(item) as t:
        again.last.output.save("out")
    assert t.run()["out"].shape == (1, 2)


def test_what_is_no_such_model_is_told_when_it_is_added(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no installed package has an entry point 'od'") as missing:
        client.add_model("entry:od", "odd")
    assert "odd" in str(missing.value.hint)
    with pytest.raises(ModelError, match=r"must give a torch.nn.Module and its example inputs, not NoneType"):
        client.add_model("entry:nothing", "odd")
    with pytest.raises(ModelError, match="RuntimeError: the weights are gone"):
        client.add_model("entry:broken", "odd")
    with pytest.raises(ModelError, match=r"'row' must be a tensor of one item, \[1, …\]"):
        client.add_model("entry:without_batch", "odd")
    with pytest.raises(UsageError, match="cannot name a model"):
        client.add_model("entry:odd", "no/name")
    assert client.queue.models() == []
