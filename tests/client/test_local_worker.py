"""A notebook or script has a worker beside it with one line, which never outlives it and whose death is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndif_batch import Client, LocalWorker, NotFoundError, Settings, UnavailableError, param
from ndif_batch.queue import schema
from ndif_batch.queue.records import JobState
from tests import tiny, toy
from tests.waiting import until
from tests.worker.working import submit

PARENT = """
import sys
from ndif_batch import Client
worker = Client().local_worker(sys.argv[1], device="cpu")
print(worker.process.pid, flush=True)
input()
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "source").mkdir()
    source = tiny.write(tmp_path / "source")
    settings = Settings(data_dir=tmp_path, model_cache=tmp_path / "models", user="ada", heartbeat_seconds=0.1)
    schema.upgrade(settings.database)
    with Client(settings) as opened:
        opened.add_model(str(source), tiny.NAME)
        yield opened


def test_a_worker_of_one_line_carries_out_jobs_until_the_block_ends(client: Client) -> None:
    lm = client.language_model(tiny.NAME)
    with lm.trace(param("prompt")) as t:
        lm.model.layers[param("layer")].output[0, -1].save("residual")
    with client.local_worker(tiny.NAME, device="cpu") as worker:
        for prompt in ("the cat", "the dog ran"):  # it is there for the second too, though nothing was left to do
            job = t.submit(grid={"layer": range(2)}, prompt=prompt).wait(timeout=60)
            assert job.state is JobState.COMPLETED
            assert job.results()["residual"].shape == (2, 16)
        assert repr(worker) == "<worker of 'tiny', running>"
    assert worker.process.returncode == 0
    assert repr(worker) == "<worker of 'tiny', ended>"
    assert "4 tasks done, 0 of them failed" in worker.log.read_text()


def test_closing_the_client_ends_its_workers(client: Client) -> None:
    worker = client.local_worker(tiny.NAME, device="cpu")
    client.close()
    assert not worker.running


def test_a_worker_ends_with_the_process_that_started_it_even_if_that_is_killed(client: Client) -> None:
    command = [sys.executable, "-c", PARENT, tiny.NAME]
    environment = os.environ | client.settings.environment()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_there(worker)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not is_there(worker), "the end of the worker")


def is_there(process: int) -> bool:
    """Whether it runs; one that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_an_interrupt_of_this_process_group_does_not_reach_the_worker(client: Client) -> None:
    with client.local_worker(tiny.NAME, device="cpu") as worker:
        assert os.getpgid(worker.process.pid) != os.getpgid(0)


def test_a_model_that_the_queue_does_not_know_starts_nothing(client: Client) -> None:
    with pytest.raises(NotFoundError, match="tyni"):
        client.local_worker("tyni")
    assert not (client.settings.data_dir / "logs").exists()


def test_waiting_for_a_job_whose_worker_died_ends_with_the_end_of_its_log(tmp_path: Path) -> None:
    """The toy model has no weights, so the worker ends by itself: with an error that its log tells."""
    with toy.client(tmp_path) as client:
        job = submit(client)
        with client.local_worker(toy.NAME, device="cpu") as worker:
            with pytest.raises(UnavailableError, match=r"exit code [1-6] before job 1 had ended") as caught:
                job.wait(timeout=60)
            assert "error: " in (caught.value.hint or "")
            assert str(worker.log) in (caught.value.hint or "")


def test_a_death_concerns_the_jobs_of_its_model_that_have_not_ended(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("first\nout of memory\n")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.kill()
    process.communicate()
    with toy.client(tmp_path) as client:
        record = submit(client).record
        LocalWorker("another", process, log).check(record)
        worker = LocalWorker(toy.NAME, process, log)
        with pytest.raises(UnavailableError, match="was killed by signal 9") as caught:
            worker.check(record)
        assert "out of memory" in (caught.value.hint or "")
        worker.check(client.job(1).cancel().record)
