"""Which GPUs a local pilot gets, decided on lists of pretended devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.errors import SettingsError, UnavailableError
from ndif_batch.launcher.devices import devices_of_host, free, listed

DEVICES = ("0", "1", "GPU-5c1a", "3")


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({}, ("0", "1", "2")),
        ({"CUDA_VISIBLE_DEVICES": "4,6"}, ("4", "6")),
        ({"CUDA_VISIBLE_DEVICES": " GPU-5c1a , 1"}, ("GPU-5c1a", "1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
    ],
)
def test_the_devices_are_those_given_to_this_process_or_else_as_many_as_the_settings_say(
    environment: dict[str, str], devices: tuple[str, ...]
) -> None:
    assert devices_of_host(environment, 3) == devices


@given(st.lists(st.integers(0, 2), max_size=8))
def test_pilots_that_hold_devices_at_once_hold_different_ones(wanted: list[int]) -> None:
    held: list[str] = []
    for count in wanted:
        if count <= len(DEVICES) - len(held):
            given = free(DEVICES, held, count)
            assert len(given) == count
            held.extend(given)
        else:
            with pytest.raises(UnavailableError, match=f"{count} GPUs were asked for, and {4 - len(held)} of 4 are"):
                free(DEVICES, held, count)
    assert len(held) == len(set(held))
    assert set(held) <= set(DEVICES)


def test_a_device_is_given_again_when_its_pilot_has_ended() -> None:
    assert free(DEVICES, ["0", "1", "3"], 1) == ("GPU-5c1a",)
    assert free(DEVICES, ["1", "3"], 1) == ("0",)


def test_what_others_hold_outside_of_these_devices_takes_none_of_them() -> None:
    assert free(("4", "5"), ["0", "1"], 2) == ("4", "5")


def test_more_gpus_than_there_are_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="gpus_per_node is 5, but pilots of this host have 4 GPUs"):
        free(DEVICES, [], 5)


def test_a_process_without_the_variable_holds_nothing() -> None:
    assert listed({}) == listed({"CUDA_VISIBLE_DEVICES": ""}) == ()
