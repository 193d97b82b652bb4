"""nnsight's traces submitted as jobs, and sessions; ``model`` is nnsight's own, its weights are not asked for."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from os import environ
from threading import Thread
from typing import Any
from unittest.mock import patch

import nnsight
import pytest
import torch

from ndif_batch import Client, worker
from ndif_batch.compat.nnsight import NDIFBatchBackend
from ndif_batch.errors import TaskError, TraceError
from ndif_batch.queue.records import JobState
from tests.compat.patterns import OTHER, PROMPT
from tests.server.serving import serving

ALL: list[Callable[[Client, Any], Any]] = []


def job(test: Callable[[Client, Any], Any]) -> Callable[[Client, Any], Any]:
    ALL.append(test)
    return test


def native(model: Any) -> torch.Tensor:
    with model.trace(PROMPT):
        hidden = model.transformer.h[1].output.save()
    found: torch.Tensor = hidden
    return found


@job
def a_job_that_is_not_waited_for(client: Client, model: Any) -> None:
    backend = NDIFBatchBackend("gpt2", client=client, submit=True, blocking=False, name="hidden", priority=0)
    with model.trace(PROMPT, backend=backend):
        hidden = model.transformer.h[1].output.save()
        norms = nnsight.save([hidden.norm()])
    assert "hidden" not in locals()
    assert "norms" not in locals()
    assert backend.job is not None
    assert (backend.job.state, backend.job.record.name) == (JobState.PENDING, "hidden")
    assert backend() is None
    worker.run(client.settings, "gpt2", until_idle=True, device="cpu")
    saved = backend()
    assert saved is not None
    expected = native(model)
    torch.testing.assert_close(saved["hidden"], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(saved["norms"][0], expected.norm(), atol=1e-4, rtol=1e-4)


@job
def a_job_that_is_waited_for(client: Client, model: Any) -> None:
    before = len(client.jobs())
    backend = NDIFBatchBackend("gpt2", client=client, submit=True, reuse=False)
    found: list[torch.Tensor] = []

    def ask() -> None:
        with model.trace(PROMPT, backend=backend):
            hidden = model.transformer.h[1].output.save()
        found.append(hidden)

    asking = Thread(target=ask)
    asking.start()
    while len(client.jobs()) == before and asking.is_alive():
        asking.join(0.05)
    worker.run(client.settings, "gpt2", until_idle=True, device="cpu")
    asking.join()
    torch.testing.assert_close(found[0], native(model), atol=1e-4, rtol=1e-4)


@job
def a_job_through_a_server(client: Client, model: Any) -> None:
    with serving(client.queue, client.settings) as served:
        own = str(client.settings.data_dir / "elsewhere")
        with patch.dict(environ, NDIF_BATCH_DATA_DIR=own, NDIF_BATCH_TOKEN=served.tokens["ada"]):
            backend = NDIFBatchBackend("gpt2", url=served.url, blocking=False)
            with model.trace(PROMPT, backend=backend):
                model.transformer.h[0].output[:, 0] = torch.ones(16)
                logits = model.output.logits.save()
        assert "logits" not in locals()
        worker.run(client.settings, "gpt2", until_idle=True, device="cpu")
        saved = backend()
    with model.trace(PROMPT):
        model.transformer.h[0].output[:, 0] = torch.ones(16)
        logits = model.output.logits.save()
    assert saved is not None
    torch.testing.assert_close(saved["logits"], logits, atol=1e-4, rtol=1e-4)


@job
def a_job_that_fails(client: Client, model: Any) -> None:
    backend = NDIFBatchBackend("gpt2", client=client, submit=True, blocking=False, nan="error")
    with model.trace(PROMPT, backend=backend):
        (model.transformer.h[1].output * 0 / 0).save()
        broken = (model.transformer.h[1].output * 0 / 0).save()
    assert "broken" not in locals()
    worker.run(client.settings, "gpt2", until_idle=True, device="cpu")
    with pytest.raises(TaskError, match="NaN"):
        backend()


@job
def a_transplant_needs_no_barrier(client: Client, model: Any) -> None:
    with model.trace(backend=NDIFBatchBackend("gpt2", client=client)) as tracer:
        with tracer.invoke(PROMPT):
            clean = model.transformer.h[1].output
            last = model.lm_head.output.save()
        with tracer.invoke(OTHER):
            model.transformer.h[1].output = clean
            logits = model.lm_head.output.save()
    torch.testing.assert_close(logits, last, atol=1e-4, rtol=1e-4)


@job
def what_a_block_prints_is_printed_when_it_is_known(client: Client, model: Any) -> None:
    said = StringIO()
    with model.trace(PROMPT, backend=NDIFBatchBackend("gpt2", client=client)):
        hidden = model.transformer.h[1].output.save()
        print("norm:", hidden.norm(), sep="", file=said)
    assert said.getvalue() == f"norm:{hidden.norm()!s}\n"


@job
def samples_are_of_the_seed(client: Client, model: Any) -> None:
    found = []
    for seed in (1, 1, 2, 3):
        backend = NDIFBatchBackend("gpt2", client=client, seed=seed)
        with model.generate(PROMPT, max_new_tokens=9, do_sample=True, temperature=1.5, backend=backend) as tracer:
            ids = tracer.result.save()
        found.append(ids[0, 4:].tolist())
    assert found[0] == found[1]
    assert found[0] != found[2] or found[0] != found[3]


@job
def the_model_of_ones_own_is_not_run(client: Client, model: Any) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("nnsight's own model was run")

    hook = model.transformer.wte._module.register_forward_pre_hook(refuse)
    try:
        with model.trace(PROMPT, backend=NDIFBatchBackend("gpt2", client=client)):
            hidden = model.transformer.h[1].output.save()
    finally:
        hook.remove()
    torch.testing.assert_close(hidden, native(model), atol=1e-4, rtol=1e-4)


@job
def a_scan_in_a_session_is_nnsights_own(client: Client, model: Any) -> None:
    with model.session(backend=NDIFBatchBackend("gpt2", client=client)):
        with model.trace(PROMPT):
            logits = model.lm_head(model.transformer.ln_f(model.transformer.h[1].output)).save()
        with model.scan(PROMPT):
            shape = nnsight.save(list(model.lm_head(model.transformer.ln_f(model.transformer.h[1].output)).shape))
    assert shape == list(logits.shape)


@job
def a_tensor_without_values_is_refused(client: Client, model: Any) -> None:
    with (
        pytest.raises(TraceError, match="a tensor on the meta device has no values"),
        model.trace(PROMPT, backend=NDIFBatchBackend("gpt2", client=client)),
    ):
        model.transformer.h[1].output[:] = torch.zeros(16, device="meta")


@job
def constants_are_as_they_were_when_used(client: Client, model: Any) -> None:
    vector = torch.ones(16)
    with model.trace(PROMPT, backend=NDIFBatchBackend("gpt2", client=client)):
        one = (model.transformer.h[1].output * 0 + vector).save()
        vector += 1
        two = (model.transformer.h[1].output * 0 + vector).save()
    assert (one.unique().item(), two.unique().item()) == (1, 2)


@job
def what_a_block_only_uses_is_left_alone(client: Client, model: Any) -> None:
    class Table(dict[str, Any]):
        def clear(self) -> None:
            raise AssertionError("a table of the user's was changed")

    table = Table(scale=2.0, rows=[1, 2])
    with model.trace(PROMPT, backend=NDIFBatchBackend("gpt2", client=client)):
        hidden = (model.transformer.h[1].output * table["scale"]).save()
    torch.testing.assert_close(hidden, native(model) * 2, atol=1e-4, rtol=1e-4)
    assert table == {"scale": 2.0, "rows": [1, 2]}


@job
def after_an_error_the_next_trace_is_as_ever(client: Client, model: Any) -> None:
    backend = NDIFBatchBackend("gpt2", client=client)
    for _ in range(2):
        try:
            with model.trace(PROMPT, backend=backend):
                model.transformer.h[1].output.save()
                raise KeyError("the user's")
        except KeyError:
            pass
    with model.trace(PROMPT, backend=backend):
        hidden = model.transformer.h[1].output.save()
    torch.testing.assert_close(hidden, native(model), atol=1e-4, rtol=1e-4)


@job
def traces_of_a_session_need_no_backend_of_their_own(client: Client, model: Any) -> None:
    with model.session(backend=NDIFBatchBackend("gpt2", client=client)):
        with model.trace(PROMPT):
            hidden = model.transformer.h[1].output
        with model.trace(OTHER):
            model.transformer.h[1].output[:] = hidden
            logits = model.output.logits.save()
    with model.trace(PROMPT):
        expected = model.output.logits.save()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
