"""What the pages load is what its authors published, and goes out with the package."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ndif_batch.server.dashboard import render
from ndif_batch.server.dashboard.render import STATIC, count, percent, short

VENDOR = STATIC / "vendor"
TEMPLATES = Path(render.__file__).with_name("templates")


def test_vendored_files_are_those_that_were_published() -> None:
    lines = [line.split() for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    sums = {name: expected for expected, name in lines}
    there = {file.name for file in VENDOR.iterdir()} - {"SHA256SUMS", "README.md"}
    assert there == set(sums)
    for name, expected in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == expected, name


def test_every_file_that_a_template_names_is_there() -> None:
    names = {name for file in TEMPLATES.iterdir() for name in re.findall(r"/static/([\w./-]+)", file.read_text())}
    assert len(names) >= 8
    assert [name for name in sorted(names) if not (STATIC / name).is_file()] == []


def test_nothing_of_ours_names_another_host() -> None:
    own = [*TEMPLATES.iterdir(), *(file for file in STATIC.iterdir() if file.is_file())]
    found = {url for file in own for url in re.findall(r"https?://[^\s\"')]+", file.read_text())}
    assert found <= {"http://www.w3.org/2000/svg"}


def test_numbers_are_short_and_never_more_than_they_say() -> None:
    assert [short(n) for n in (0, 7, 999, 1234, 123_456, 2.5e6, 3e9, None)] == [
        "0", "7", "999", "1.23k", "123k", "2.5M", "3G", "\u2013",
    ]  # fmt: skip
    assert [percent(part, 1000) for part in (0, 1, 500, 999, 1000)] == [
        "0\u202f%", "<1\u202f%", "50\u202f%", ">99\u202f%", "100\u202f%",
    ]  # fmt: skip
    assert count(1234567) == "1\u202f234\u202f567"
