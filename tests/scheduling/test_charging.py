"""What a pass costs its users: everything is paid, by whom it was for, and sharing is a discount."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.scheduling import Charge, charge

alone = st.dictionaries(st.sampled_from(["ada", "bob", "cyd", "dan"]), st.integers(0, 10**9), min_size=1)


@given(st.floats(0, 1e6), alone, st.data())
def test_the_charges_are_the_cost(seconds: float, tokens: dict[str, int], data: st.DataObject) -> None:
    run = data.draw(st.integers(0, sum(tokens.values())))
    charges = charge(seconds, tokens, run)
    assert charges.keys() == tokens.keys()
    assert sum(one.gpu_seconds for one in charges.values()) == pytest.approx(seconds)
    assert {user: one.tokens for user, one in charges.items()} == tokens
    assert sum(one.tokens - one.shared_tokens for one in charges.values()) == run
    assert all(0 <= one.shared_tokens <= one.tokens for one in charges.values())


def test_a_pass_that_halves_the_tokens_halves_what_each_pays() -> None:
    assert charge(3.0, {"ada": 10, "bob": 20}, 15) == {"ada": Charge(1.0, 10, 5), "bob": Charge(2.0, 20, 10)}


def test_a_pass_without_tokens_is_paid_by_all_alike() -> None:
    assert charge(3.0, {"ada": 0, "bob": 0}, 0) == {"ada": Charge(1.5, 0, 0), "bob": Charge(1.5, 0, 0)}
    assert charge(3.0, {}, 0) == {}
