"""A job binds what another one saves: it begins after that, in whichever process, with the value that is then there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ndif_batch import Client, LanguageModel, NotFoundError, ShapeError, UsageError, param
from ndif_batch.config import Settings
from ndif_batch.queue import schema
from ndif_batch.queue.records import JobState
from ndif_batch.trace import Trace
from tests import tiny

WORDS = [f"the {word} sat on" for word in ("cat", "dog", "mat", "Paris", "Rome")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("source"))


@pytest.fixture
def client(source: Path, tmp_path: Path) -> Iterator[Client]:
    settings = Settings(data_dir=tmp_path, model_cache=tmp_path / "models", user="ada", heartbeat_seconds=0.1)
    schema.upgrade(settings.database)
    with Client(settings) as opened:
        opened.add_model(str(source), tiny.NAME)
        yield opened


def drain(client: Client) -> None:
    from ndif_batch import worker

    worker.run(client.settings, "tiny", until_idle=True, device="cpu")


def reading(client: Client) -> Trace:
    lm = LanguageModel("tiny", client)
    with lm.trace(param("prompt")) as t:
        lm.model.layers[param("layer")].output[0].save("states", dims=("token", "width"))
        lm.model.layers[param("layer")].output[0, -1].save("last", dims=("width",))
    return t


def ablating(client: Client) -> Trace:
    lm = LanguageModel("tiny", client)
    with lm.trace(param("prompt")) as t:
        mean = param("mean", "tensor")
        lm.model.layers[param("layer")].output[0, -1] = mean[param("layer")]
        lm.lm_head.output[0, -1].save("logits")
    return t


def test_a_mean_ablation_takes_its_mean_from_the_job_before_it(client: Client) -> None:
    first, second = reading(client), ablating(client)
    reduce = {"last": {"axis": "prompt", "op": "mean"}, "states": {"axis": ["prompt", "token"], "op": "mean"}}
    means = first.submit(grid={"layer": range(2), "prompt": WORDS}, reduce=reduce)
    job = second.submit(grid={"prompt": WORDS[:2], "layer": range(2)}, mean=means.saved("last"))
    assert (job.state, job.record.awaiting, job.record.after) == (JobState.HELD, True, (means.id,))
    drain(client)
    assert job.refresh().state is JobState.COMPLETED
    last = np.array([[first.run(layer=layer, prompt=word)["last"] for word in WORDS] for layer in range(2)])
    mean = torch.tensor(last.mean(1), dtype=torch.float32)
    logits = np.asarray(job.results()["logits"])
    for at, word in enumerate(WORDS[:2]):
        for layer in range(2):
            alone = second.run(prompt=word, layer=layer, mean=mean)["logits"]
            np.testing.assert_allclose(logits[at, layer], alone, atol=1e-5)
    assert float(np.abs(logits[:, 0] - logits[:, 1]).max()) > 1e-3
    assert client.recompute(job.id, 4).deviating == ()

    again = first.submit(grid={"layer": range(2), "prompt": WORDS}, reduce=reduce)
    same = second.submit(grid={"prompt": WORDS[:2], "layer": range(2)}, mean=again.saved("last"))
    other = second.submit(grid={"prompt": WORDS[:2], "layer": range(2)}, mean=again.saved("states"))
    assert again.saved("last").digest == means.saved("last").digest
    drain(client)
    assert set(same.refresh().results().status().reshape(-1).tolist()) == {3}
    assert set(other.refresh().results().status().reshape(-1).tolist()) == {1}


def test_what_cannot_be_bound_is_told_before_anything_is_queued(client: Client) -> None:
    t = reading(client)
    job = t.submit(grid={"layer": range(2), "prompt": ["the cat", *WORDS]})
    with pytest.raises(NotFoundError, match=f"job {job.id} saves nothing called 'lost'"):
        job.saved("lost")
    with pytest.raises(UsageError, match="'states' is not of one length in all tasks"):
        job.saved("states")
    with pytest.raises(ShapeError):
        ablating(client).submit(prompt="the cat", layer=0, mean=job.saved("last"))
    assert len(client.jobs()) == 1


def test_one_that_fails_takes_those_after_it_along_and_tells_why(client: Client) -> None:
    means = reading(client).submit(
        grid={"layer": range(2), "prompt": WORDS}, reduce={"last": {"axis": "prompt", "op": "mean"}}
    )
    job = ablating(client).submit(prompt="the cat", layer=0, mean=means.saved("last"))
    means.cancel()
    assert job.refresh().state is JobState.CANCELLED
    assert job.record.reason == f"job {means.id}, after which it comes, is CANCELLED"
