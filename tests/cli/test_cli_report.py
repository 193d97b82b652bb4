"""What any exception becomes on stderr, and the exit code."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ndif_batch.cli.report import report
from ndif_batch.errors import NotAllowedError, NotFoundError, TaskError, TimedOutError, UnavailableError, UsageError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskError("x"), 1),
        (UsageError("x"), 2),
        (NotFoundError("x"), 3),
        (NotAllowedError("x"), 4),
        (TimedOutError("x"), 5),
        (UnavailableError("x", hint="do y"), 6),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), 6),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a"), 6),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), 3),
    ],
)
def test_known_errors_are_one_line_and_have_their_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n(hint: .+\n)?", err)


def test_an_unexpected_error_is_one_line_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyError) as caught:
        raise KeyError("x")
    assert report(caught.value) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: unexpected KeyError: 'x'"
    (file,) = tmp_path.iterdir()
    assert second == f"hint: the traceback is in {file}"
    assert 'raise KeyError("x")' in file.read_text()


def test_an_interrupt_is_quiet_and_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_what_a_user_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report(UsageError("bad \x1b[31mname\x07 [bold]x[/bold]"))
    assert capsys.readouterr().err == "error: bad \\x1b[31mname\\x07 [bold]x[/bold]\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys\n"
        "from ndif_batch.cli.main import run\n"
        "from ndif_batch.cli.main import app\n"
        "from ndif_batch.cli.output import write_text\n"
        "@app.command()\n"
        "def flood() -> None:\n"
        "    while True: write_text('x' * 4096)\n"
        "sys.argv = ['ndif-batch', 'flood']\n"
        "run()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == "x"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (1, 141)
