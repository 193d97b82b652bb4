"""A database that is away for a moment costs nothing; one that stays away ends the worker with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.worker.patience import RETRY_SECONDS, Patience
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working


class Watch:
    """A clock that only pauses move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_an_outage_is_waited_out() -> None:
    watch = Watch()
    answers: Iterator[str | None] = iter([None, None, "here"])

    def question() -> str:
        answer = next(answers)
        if answer is None:
            raise UnavailableError("away")
        return answer

    assert Patience(10, watch, watch.pause).ask(question) == "here"
    assert watch.now == 2 * RETRY_SECONDS


def test_an_outage_that_lasts_is_an_error() -> None:
    watch = Watch()

    def question() -> str:
        raise UnavailableError("away")

    with pytest.raises(UnavailableError, match="away"):
        Patience(1, watch, watch.pause).ask(question)
    assert watch.now == 1


def test_a_worker_goes_on_where_the_database_comes_back(client: Client) -> None:
    """The file of the database is taken away while the worker computes, and put back while it waits."""
    job = submit(client)
    database = client.settings.data_dir / "queue.db"
    away = database.with_name("away.db")
    pauses: list[float] = []

    def take_away(task: object) -> None:
        if not pauses and database.exists():
            client.queue.close()
            database.rename(away)
            database.mkdir()

    def put_back(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            database.rmdir()
            away.rename(database)

    patience = Patience(pause=put_back)
    with working(client, ToyEngine(take_away), patience=patience) as here:
        here.run()
    assert len(pauses) == 2
    assert_right(job)
