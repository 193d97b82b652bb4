"""nnsight's documented patterns give through our backend what nnsight gives; what a graph cannot express is refused.

One process of its own runs them all: importing nnsight gives every object a method ``save``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.compat import page

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "tests" / "compat" / "patterns.py").read_text()
PATTERNS = re.findall(r"^@(?:gpt2|llama)\ndef (\w+)", TEXT, re.MULTILINE)
REFUSED = {name: because for because, name in re.findall(r'^@refused\("(.*)"\)\ndef (\w+)', TEXT, re.MULTILINE)}
JOBS = re.findall(r"^@job\ndef (\w+)", (ROOT / "tests" / "compat" / "jobs.py").read_text(), re.MULTILINE)
PAIRS = list(page.pairs())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out: ``both`` ways, ``refused``, ``jobs``, and ``pages``, the pairs of blocks of the page."""
    directory = tmp_path_factory.mktemp("nnsight")
    output = directory / "found.pt"
    command = [sys.executable, "-m", "tests.compat.child", str(directory), str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = torch.load(output)
    return made


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal to 1e-4, with equal shapes and dtypes."""
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    else:
        assert ours == theirs


def test_there_are_as_many_patterns_as_the_page_promises() -> None:
    assert len(PATTERNS) >= 50
    assert len(PAIRS) >= 15


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_gives_through_the_backend_what_nnsight_gives(found: dict[str, Any], name: str) -> None:
    theirs, ours = found["both"][name]
    assert not isinstance(theirs, str), theirs
    assert not isinstance(ours, str), ours
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_express_is_refused_with_the_users_line(found: dict[str, Any], name: str) -> None:
    said = found["refused"][name]
    assert re.match(r"(TraceError|UnknownMethodError): \S+patterns\.py:\d+: " + re.escape(REFUSED[name]), said), said


@pytest.mark.parametrize("name", JOBS)
def test_traces_as_jobs_and_in_sessions(found: dict[str, Any], name: str) -> None:
    assert found["jobs"][name] is None, found["jobs"][name]


@pytest.mark.parametrize("number", range(len(PAIRS)), ids=[f"line-{block.line}" for block, _ in PAIRS])
def test_a_pair_of_blocks_of_the_page_gives_the_same_three_ways(found: dict[str, Any], number: int) -> None:
    native, backend, here = found["pages"][number]
    assert not isinstance(here, str), here
    shared = [name for name in here if not isinstance(native, str) and native.get(name) is not None]
    assert shared, (native, here)
    for name in shared:
        assert_same(here[name], native[name])
        assert_same(backend[name], native[name])


@pytest.mark.parametrize("block", page.refused(), ids=lambda block: f"line-{block.line}")
def test_the_page_says_why_a_block_is_refused(found: dict[str, Any], block: page.Block) -> None:
    said = found["refused"][str(block.line)].partition("\n")[0]
    because = block.after.partition(": ")[0]
    assert because.strip("`") in said or because in said, said
