"""A token opens what its scopes and its user's role both have, until it expires or is revoked; its text is not kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from ndif_batch.errors import ConflictError, NotAllowedError, NotAuthenticatedError, NotFoundError, UsageError
from ndif_batch.queue.access import SCOPES, SESSION_LASTS, Caller, Scope, parse_token
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock

DAY = 86_400.0


@pytest.fixture(params=Role)
def role(request: pytest.FixtureRequest, queue: Queue) -> Role:
    queue.create_user("ada", request.param, actor="root")
    found: Role = request.param
    return found


def test_a_token_says_who_calls_and_opens_what_the_role_does(queue: Queue, role: Role) -> None:
    made = queue.create_token("ada", "laptop", actor="root")
    assert queue.authenticate(made.text) == Caller("ada", role, SCOPES[role])
    assert queue.tokens("ada") == [made.record] == [queue.token(made.record.id)]
    assert (made.record.name, made.record.created_by, set(made.record.scopes)) == ("laptop", "root", set(SCOPES[role]))


def test_a_token_has_no_scope_that_the_role_lacks(queue: Queue, role: Role) -> None:
    for scope in set(Scope) - SCOPES[role]:
        with pytest.raises(UsageError, match=f"of the {role} 'ada' cannot open"):
            queue.create_token("ada", scopes=[scope], actor="root")
    with pytest.raises(UsageError, match="cannot open"):
        queue.create_token("ada", scopes=[], actor="root")


def test_a_role_that_is_taken_away_closes_tokens_and_one_that_is_given_opens_none(queue: Queue) -> None:
    queue.create_user("ada", Role.ADMIN, actor="root")
    made = queue.create_token("ada", actor="root")
    queue.set_role("ada", Role.READER, actor="root")
    caller = queue.authenticate(made.text)
    assert (set(caller.scopes), caller.sees_all) == ({Scope.READ}, True)
    with pytest.raises(NotAllowedError, match="needs the scope 'admin'"):
        caller.require(Scope.ADMIN)
    weak = queue.create_token("ada", scopes=[Scope.READ], actor="root")
    queue.set_role("ada", Role.ADMIN, actor="root")
    assert queue.authenticate(weak.text).scopes == {Scope.READ}


def test_a_token_expires_by_the_clock_of_the_database(queue: Queue, clock: HandClock) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    made = queue.create_token("ada", expires_days=2, actor="root")
    clock.forward(2 * DAY - 1)
    assert queue.authenticate(made.text).expires_at == made.record.expires_at
    clock.forward(1)
    with pytest.raises(NotAuthenticatedError, match=f"token {made.record.id} has expired"):
        queue.authenticate(made.text)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_token_expires_at_a_time_that_can_be(queue: Queue, days: float) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    with pytest.raises(UsageError, match="cannot expire in"):
        queue.create_token("ada", expires_days=days, actor="root")


def test_a_revoked_token_opens_nothing_and_says_so_to_who_has_it(queue: Queue, clock: HandClock) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    made, other = queue.create_token("ada", actor="root"), queue.create_token("ada", actor="root")
    assert queue.revoke_token(made.record.id, actor="root").revoked_at == clock.now
    clock.forward(1)
    assert queue.revoke_token(made.record.id, actor="root").revoked_at != clock.now
    with pytest.raises(NotAuthenticatedError, match=f"token {made.record.id} is revoked"):
        queue.authenticate(made.text)
    assert queue.authenticate(other.text).user == "ada"


def test_wrong_tokens_are_all_refused_in_the_same_words(queue: Queue) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    made, other = queue.create_token("ada", actor="root"), queue.create_token("ada", actor="root")
    secrets = [parsed[1] for parsed in map(parse_token, (made.text, other.text)) if parsed]
    wrong = [
        "",
        "x",
        made.text + "x",
        made.text[:-1] + "!",
        f"ndif_{made.record.id}_{secrets[1]}",
        f"ndif_9_{secrets[0]}",
    ]
    for attempt in [*wrong, f"ndif_{10**17}_{secrets[0]}", f"ndif_{10**30}_{secrets[0]}", made.text.upper(), "é" * 60]:
        with pytest.raises(NotAuthenticatedError) as caught:
            queue.authenticate(attempt)
        assert caught.value.message == "the token is not valid"


def test_the_text_of_a_token_is_stored_nowhere(queue: Queue) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    made = queue.create_token("ada", "laptop", actor="root")
    parsed = parse_token(made.text)
    assert parsed is not None
    with queue._database.read() as tx:
        for table in ("token", "event", '"user"'):
            assert parsed[1] not in str(tx.connection.execute(text(f"SELECT * FROM {table}")).all())


def test_who_made_and_revoked_a_token_is_told(queue: Queue) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    queue.revoke_token(queue.create_token("ada", actor="eve").record.id, actor="bob")
    told = [(event.kind.value, event.actor) for event in queue.events()][-3:]
    assert told == [("user.changed", "root"), ("token.created", "eve"), ("token.revoked", "bob")]


def test_tokens_of_nobody_and_users_twice_are_refused(queue: Queue) -> None:
    with pytest.raises(NotFoundError, match="no user 'eve'"):
        queue.create_token("eve", actor="root")
    with pytest.raises(NotFoundError, match="no token 9"):
        queue.revoke_token(9, actor="root")
    queue.create_user("ada", Role.USER, actor="root")
    with pytest.raises(ConflictError, match="there is a user 'ada' already"):
        queue.create_user("ada", Role.ADMIN, actor="root")
    assert queue.user("ada").role is Role.USER


@pytest.mark.parametrize("name", ["", "..", "../eve", "a/b", "a b", "-x", "x" * 101, "a\n"])
def test_a_user_s_name_can_be_that_of_a_directory(queue: Queue, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a user"):
        queue.create_user(name, Role.USER, actor="root")
    with pytest.raises(UsageError, match="cannot name a user"):
        queue.set_shares(name, 2, actor="root")
    assert queue.users() == []


def test_a_code_becomes_one_session_once_and_opens_nothing_itself(queue: Queue, clock: HandClock) -> None:
    queue.create_user("ada", Role.ADMIN, actor="root")
    code = queue.create_login([Scope.READ], actor="ada")
    assert code.record.expires_at == clock.now + timedelta(minutes=10)
    with pytest.raises(NotAuthenticatedError, match="not a token"):
        queue.authenticate(code.text)
    session = queue.login(code.text)
    assert queue.authenticate(session.text).scopes == {Scope.READ}
    assert session.record.expires_at == clock.now + SESSION_LASTS
    for spent in (code.text, session.text, "nothing"):
        with pytest.raises(NotAuthenticatedError):
            queue.login(spent)
    clock.forward(SESSION_LASTS.total_seconds())
    with pytest.raises(NotAuthenticatedError, match="expired"):
        queue.authenticate(session.text)


def test_a_code_is_too_old_after_ten_minutes(queue: Queue, clock: HandClock) -> None:
    queue.create_user("ada", Role.USER, actor="root")
    code = queue.create_login(actor="ada")
    clock.forward(600)
    with pytest.raises(NotAuthenticatedError, match="expired"):
        queue.login(code.text)


def test_a_code_is_for_a_user_that_there_is_and_no_token_can_be_one(queue: Queue) -> None:
    with pytest.raises(NotFoundError):
        queue.create_login(actor="nobody")
    queue.create_user("ada", Role.ADMIN, actor="root")
    with pytest.raises(UsageError, match="cannot open"):
        queue.create_token("ada", scopes=[Scope.LOGIN], actor="root")
