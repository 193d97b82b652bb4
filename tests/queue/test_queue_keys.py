"""What is asked under an idempotency key is done once; answers are kept for a day, errors and secrets never."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy import func, select

from ndif_batch.errors import ConflictError, KeyReusedError, NotFoundError, UsageError
from ndif_batch.queue.access import NewToken, parse_token
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.keys import KEPT, LOST, SWEPT, Claim
from ndif_batch.queue.once import Once
from ndif_batch.queue.routes import plain_key, quoted_key
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import keyed_request, metadata
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import MODEL, job_spec


def once(queue: Queue, key: str = "k", caller: str = "root") -> Once:
    return Once(queue, queue, caller, key)


def kept(queue: Queue) -> int:
    with queue._database.read() as tx:
        return tx.connection.scalar(select(func.count()).select_from(keyed_request)) or 0


def test_an_equal_request_gets_the_first_answer_and_does_nothing(queue: Queue) -> None:
    job = queue.submit(job_spec())
    first = once(queue).hold(job.id, "ada")
    queue.release(job.id, "ada")
    assert once(queue).hold(job_id=job.id, actor="another who acts") == first
    assert queue.job(job.id).state != first.state
    made = once(queue, "u").create_user("zoe", Role.READER, actor="root")
    assert once(queue, "u").create_user("zoe", Role.READER, actor="root") == made
    assert once(queue, "n").load_model(MODEL.name, actor="root") is None
    queue.let_go(MODEL.name, actor="root")
    assert once(queue, "n").load_model(MODEL.name, actor="root") is None
    assert queue.settings()[f"load:{MODEL.name}"] is False


def test_another_request_under_the_key_is_refused_unless_it_is_another_callers(queue: Queue) -> None:
    once(queue).create_user("zoe", Role.USER, actor="root")
    with pytest.raises(KeyReusedError, match="'k' was used for another request"):
        once(queue).create_user("zoe", Role.READER, actor="root")
    with pytest.raises(KeyReusedError):
        once(queue).pause(actor="root")
    once(queue, caller="ada").create_user("yan", Role.USER, actor="ada")
    assert [user.name for user in queue.users()] == ["yan", "zoe"]


def test_the_answer_to_who_asks_again_for_a_token_has_no_text_and_none_is_stored(queue: Queue) -> None:
    queue.create_user("zoe", Role.USER, actor="root")
    first: NewToken = once(queue).create_token("zoe", "laptop", actor="root")
    again: NewToken = once(queue).create_token("zoe", "laptop", None, None, actor="root")
    assert (again.record, again.text) == (first.record, "")
    assert queue.tokens() == [first.record]
    assert queue.authenticate(first.text).user == "zoe"
    _, secret = parse_token(first.text) or (0, "")
    code = once(queue, "login").create_login(actor="zoe").text
    with queue._database.read() as tx:
        stored = repr([tx.connection.execute(select(table)).all() for table in metadata.sorted_tables])
    assert "laptop" in stored
    assert secret not in stored
    assert code not in stored


def test_an_error_leaves_the_key_free(queue: Queue) -> None:
    with pytest.raises(NotFoundError):
        once(queue).create_token("zoe", actor="root")
    assert kept(queue) == 0
    queue.create_user("zoe", Role.USER, actor="root")
    assert once(queue).create_token("zoe", actor="root").text


def test_while_a_request_is_carried_out_an_equal_one_is_refused(queue: Queue) -> None:
    began, goes_on = Event(), Event()

    class Slow:
        def pause(self, model: str | None = None, *, actor: str) -> None:
            began.set()
            assert goes_on.wait(60)

    slow = Once(Slow(), queue, "root", "k")
    with ThreadPoolExecutor(1) as another:
        running = another.submit(slow.pause, actor="root")
        assert began.wait(60)
        with pytest.raises(ConflictError, match="is being carried out"):
            slow.pause(actor="root")
        goes_on.set()
        assert running.result() is None
    began.clear()
    assert slow.pause(actor="root") is None
    assert not began.is_set()


def test_of_many_at_once_one_is_carried_out(queue: Queue) -> None:
    def create(number: int) -> int:
        try:
            made: NewToken = once(queue).create_token("zoe", actor="root")
        except ConflictError:
            return 0
        return made.record.id

    queue.create_user("zoe", Role.USER, actor="root")
    with ThreadPoolExecutor(8) as all_of_them:
        answers = set(all_of_them.map(create, range(24)))
    (token,) = queue.tokens()
    assert answers - {0} == {token.id}


def test_keys_are_forgotten_after_a_day_and_requests_of_dead_servers_sooner(queue: Queue, clock: HandClock) -> None:
    lost = queue.claim_key("root", "lost", "f")
    assert lost == Claim(lost.id)
    once(queue).pause(actor="root")
    clock.forward(LOST.total_seconds() - 1)
    with pytest.raises(ConflictError):
        queue.claim_key("root", "lost", "f")
    clock.forward(1)
    assert queue.claim_key("root", "lost", "g").answered is False
    clock.forward((KEPT - LOST).total_seconds() - 1)
    assert queue.settings()["pause"] is True
    queue.resume(actor="root")
    once(queue).pause(actor="root")
    assert queue.settings()["pause"] is False
    clock.forward(1)
    once(queue).pause(actor="root")
    assert queue.settings()["pause"] is True


def test_who_never_comes_back_leaves_nothing(queue: Queue, clock: HandClock) -> None:
    for number in range(SWEPT + 20):
        queue.keep_answer(queue.claim_key("ada", f"k{number}", "f"), "null")
    clock.forward(KEPT.total_seconds())
    queue.claim_key("bob", "k", "f")
    assert kept(queue) == 21
    queue.claim_key("bob", "l", "f")
    assert kept(queue) == 2


def test_what_cannot_be_a_key_is_refused_and_none_goes_with_a_question(queue: Queue) -> None:
    for key in ("", "é", "a\n", "x" * 201):
        with pytest.raises(UsageError, match="cannot be a key"):
            once(queue, key)
    with pytest.raises(AttributeError, match="no key goes with 'users'"):
        once(queue).users()


@pytest.mark.parametrize("key", ["k", 'a"b', "\\", ' " ', '\\"', "8e03978e-40d5-43e8-bc93-6894a57f9324"])
def test_a_key_comes_back_from_its_header(key: str) -> None:
    assert plain_key(quoted_key(key)) == key
    assert json.loads(quoted_key(key)) == key
