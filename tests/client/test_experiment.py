"""From a traced experiment to its results on a real, tiny model: here, through the queue, and equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ndif_batch import Client, LanguageModel, NotFoundError, SettingsError, ShapeError, TaskError, TimedOutError, param
from ndif_batch.config import Settings
from ndif_batch.errors import NotAllowedError
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import Quotas
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.trace import Trace
from tests import tiny

PROMPTS = {"clean": "the cat sat on", "corrupted": "the dog sat on"}


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


def patching(client: Client) -> Trace:
    lm = LanguageModel("tiny", client)
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = lm.model.layers[param("layer")].output
        with t.invoke(param("corrupted")):
            lm.model.layers[param("layer")].output[:, param("position")] = clean[:, param("position")]
            logits = lm.lm_head.output[0, -1]
            (logits[param("answer")] * param("scale")).save("logit")
            lm.model.norm.output[0].save("hidden", dims=("token", "width"))
    return t


BOUND: dict[str, Any] = {"answer": " Paris", "scale": 1.0, **PROMPTS}


def drain(client: Client) -> None:
    from ndif_batch import worker

    worker.run(client.settings, "tiny", until_idle=True, device="cpu")


def test_a_sweep_through_queue_and_archive_equals_single_runs_here(client: Client) -> None:
    t = patching(client)
    job = t.submit(grid={"layer": range(2), "position": range(4)}, name="patching", **BOUND)
    assert repr(job) == f"<job {job.id} 'patching' PENDING 0/8 tasks>"
    drain(client)
    results = job.wait(timeout=0).results()
    assert job.state is JobState.COMPLETED
    assert results.verify() == []
    dataset = results.xarray()
    assert dataset["logit"].dims == ("layer", "position")
    assert dataset["hidden"].dims == ("layer", "position", "token", "width")
    for layer in range(2):
        for position in range(4):
            alone = t.run(layer=layer, position=position, **BOUND)
            there = dataset.sel(layer=layer, position=position)
            assert np.allclose(there["logit"], alone["logit"], atol=1e-5)
            assert np.allclose(there["hidden"], alone["hidden"], atol=1e-5)
    assert float(dataset["logit"].std()) > 0
    assert results.attributes["tokens"] == ["the", "cat", "sat", "on"]
    assert results.attributes["runtime"]["device"] == "cpu"


def test_parameters_that_vary_together_share_one_axis(client: Client) -> None:
    t = patching(client)
    pairs = {"clean": ["the cat", "the cat sat on"], "corrupted": ["the dog", "the dog ran far"]}
    job = t.submit(zip=pairs, grid={"layer": range(2)}, position=1, answer=" Paris", scale=2.0)
    drain(client)
    dataset = job.refresh().results().xarray()
    assert dict(dataset["hidden"].sizes) == {"layer": 2, "point": 2, "token": 4, "width": 16}
    assert dataset["clean"].values.tolist() == pairs["clean"]
    assert bool(dataset["hidden"].sel(point=0, token=[2, 3]).isnull().all())


def test_a_run_here_says_what_is_wrong_before_the_model_is_loaded(client: Client) -> None:
    t = patching(client)
    with pytest.raises(ShapeError, match="position 9 is outside the 4 tokens of run 'clean'"):
        t.run(layer=0, position=9, **BOUND)
    assert client._here._engines == {}


def test_the_model_is_loaded_once_for_all_runs_here(client: Client) -> None:
    t = patching(client)
    t.run(layer=0, position=1, **BOUND)
    (engine,) = client._here._engines.values()
    t.run(layer=1, position=1, **BOUND)
    assert list(client._here._engines.values()) == [engine]


def test_a_task_that_fails_while_it_runs_is_an_error_here(client: Client) -> None:
    lm = LanguageModel("tiny", client)
    with lm.trace("the cat") as t:
        best = lm.lm_head.output[0, -1].argmax()
        lm.lm_head.output[0, best].sum().save("x")
    with pytest.raises(TaskError):
        t.run()


def test_constants_travel_with_the_graph(client: Client) -> None:
    lm = LanguageModel("tiny", client)
    vector = torch.linspace(-1, 1, 16)
    with lm.trace(param("prompt")) as t:
        lm.model.layers[0].output[:, -1] += vector
        lm.model.norm.output[0, -1].save("last")
    job = t.submit(grid={"prompt": ["the cat", "the dog ran"]})
    drain(client)
    saved = job.refresh().results()["last"]
    for i, prompt in enumerate(["the cat", "the dog ran"]):
        assert np.allclose(np.asarray(saved)[i], t.run(prompt=prompt)["last"], atol=1e-5)


def test_random_numbers_follow_from_the_seed_of_the_job(client: Client) -> None:
    lm = LanguageModel("tiny", client)
    with lm.trace(param("prompt")) as t:
        noise: Any = torch.randn_like(lm.model.layers[0].output[0, -1])
        noise.save("noise")
    jobs = [t.submit(grid={"prompt": ["the cat", "the dog"]}, seed=seed) for seed in (1, 1, 2)]
    drain(client)
    first, same, other = (np.asarray(job.refresh().results()["noise"]) for job in jobs)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first[0], t.run(prompt="the cat", seed=1)["noise"])


def test_a_handle_waits_cancels_and_finds_nothing_before_the_first_lease(client: Client) -> None:
    job = patching(client).submit(grid={"layer": range(2)}, position=0, **BOUND)
    with pytest.raises(NotFoundError, match=rf"job {job.id} has no results yet: it is PENDING"):
        job.results()
    with pytest.raises(TimedOutError, match=rf"job {job.id} is still PENDING after 0 s") as caught:
        job.wait(timeout=0)
    assert "worker run --model tiny" in str(caught.value.hint)
    assert job.hold().state is JobState.HELD
    assert job.release().state is JobState.PENDING
    assert job.cancel().state is JobState.CANCELLED
    assert client.job(job.id).state is JobState.CANCELLED
    assert [each.id for each in client.jobs()] == [job.id]


def test_waiting_looks_again_until_the_job_has_ended(client: Client) -> None:
    job = patching(client).submit(grid={"layer": range(2)}, position=0, **BOUND)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            drain(client)

    seen: list[JobState] = []
    job.wait(on_look=lambda record: seen.append(record.state), poll_seconds=0.5, pause=pause)
    assert pauses == [0.5] * 3
    assert seen == [JobState.PENDING] * 3 + [JobState.COMPLETED]


def test_the_same_key_gives_the_same_job(client: Client) -> None:
    t = patching(client)
    ids = {t.submit(grid={"layer": range(2)}, position=0, key="k", **BOUND).id for _ in range(2)}
    assert len(ids) == 1


def test_a_job_that_would_fill_more_of_the_archive_than_its_user_may_is_refused_with_the_numbers(
    client: Client,
) -> None:
    client.queue.set_quotas(client.settings.user, Quotas(archive_bytes=10), actor="admin")
    with pytest.raises(NotAllowedError, match=r"archive bytes .* of 10 allowed"):
        patching(client).submit(grid={"layer": range(2)}, position=0, **BOUND)


def test_a_user_name_that_is_no_directory_is_refused(client: Client) -> None:
    client.settings.user = "../eve"
    with pytest.raises(SettingsError, match=r"'\.\./eve' cannot name a directory"):
        patching(client).submit(grid={"layer": range(2)}, position=0, **BOUND)


def test_axes_of_a_space_are_those_of_the_archive(client: Client) -> None:
    axes = (Axis("scale", {"scale": [0.5, 2.0]}), Axis("layer", {"layer": range(2)}))
    space = Space(axes, {"position": 0, "answer": "Paris", **PROMPTS})
    job = client.submit(client.prepare(patching(client).graph, space, "tiny"))
    drain(client)
    logit = job.refresh().results().xarray()["logit"]
    assert logit.dims == ("scale", "layer")
    assert np.allclose(logit.sel(scale=2.0), 4 * logit.sel(scale=0.5), rtol=1e-4)


def test_generations_that_stop_early_come_through_queue_and_archive_with_their_lengths(client: Client) -> None:
    lm = LanguageModel("tiny", client)
    with lm.generate(param("prompt"), max_new_tokens=8, stop=list(range(0, 50, 4))) as t:
        t.tokens.save("tokens", dims=("step",))
        with t.iter[:]:
            lm.model.layers[1].output[0].save("states", dims=("position", "width"))
    prompts = [f"the {word} sat on" for word in ("cat", "dog", "mat", "Paris", "Rome", "far")]
    job = t.submit(grid={"prompt": prompts})
    drain(client)
    results = job.wait(timeout=0).results()
    assert results.verify() == []
    lengths = results.xarray()["tokens_length"].values.tolist()
    assert len(set(lengths)) > 1
    assert lm.decode([0, 1]) == "the cat"
    for place, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        alone = t.run(prompt=prompt)
        assert results["tokens"][place, :length].tolist() == alone["tokens"].tolist()
        np.testing.assert_allclose(results["states"][place, : 4 + length - 1], alone["states"], atol=1e-5)


def test_a_session_runs_as_one_task_and_a_mean_over_prompts_is_that_of_all_values(client: Client) -> None:
    lm = LanguageModel("tiny", client)
    with lm.session() as s:
        with lm.trace(param("clean")):
            clean = lm.model.layers[0].output[0, -1].save("read")
        with lm.trace(param("corrupted")):
            lm.model.layers[param("layer")].output[0, 1] = clean
            lm.lm_head.output[0, -1].save("logits")
    words = [f"the {word} sat" for word in ("cat", "dog", "mat", "Paris", "Rome")]
    reduce = {"read": {"axis": "clean", "op": "mean"}, "logits": {"axis": ["layer", "clean"], "op": "mean"}}
    job = s.submit(grid={"layer": range(2), "clean": words}, corrupted="the dog ran far", reduce=reduce)
    drain(client)
    data = job.wait(timeout=0).results().xarray()
    assert (data["read"].dims, data["logits"].dims) == (("layer", "read_0"), ("logits_0",))
    alone = [[s.run(layer=layer, clean=word, corrupted="the dog ran far") for word in words] for layer in range(2)]
    for name, axis in (("read", 1), ("logits", (0, 1))):
        values = np.array([[np.asarray(one[name]) for one in row] for row in alone])
        np.testing.assert_allclose(data[name].values, values.mean(axis), atol=1e-5)
