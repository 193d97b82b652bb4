"""Every mistake of a user ends in one readable message and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndif_batch.client import Client
from tests.cli.conftest import JOB, SWEEP, Run

USAGE, NOT_FOUND, TIMED_OUT, UNAVAILABLE = 2, 3, 5, 6
SUBMIT = ("submit", "job.py", "--model", "toy", "-S", "prompt=the cat sat", "-S", "answer=Paris")


def wrong(run: Run, code: int, message: str, *arguments: object, hint: str = "") -> None:
    """The command ends with ``code`` and one error line, without a traceback, and nothing was written to stdout."""
    ran = run(*arguments)
    lines = ran.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, ran.err
    assert message in errors[0]
    assert any(line.startswith("hint: ") and hint in line for line in lines) or not hint, ran.err
    assert "Traceback" not in ran.err
    assert (ran.code, ran.out) == (code, "")


def test_a_wrong_module_path_names_the_line_and_the_nearest_module(run: Run, client: Client, folder: Path) -> None:
    (folder / "job.py").write_text(JOB.replace("lm.model.layers", "lm.model.layer"))
    wrong(run, USAGE, "job.py:8: ", "sweep", "plan", "sweep.yaml", hint="layers")


def test_a_wrong_module_path_in_a_graph_names_node_and_nearest_site(run: Run, client: Client, folder: Path) -> None:
    graph = run("graph", "show", "job.py", "--model", "toy", "--json").out
    (folder / "g.json").write_text(graph.replace("model.layers.{layer}.output", "model.layers.{layer}.outptu"))
    arguments = ("submit", "g.json", *SUBMIT[2:], "--grid", "layer=0:4", "-S", "position=0")
    wrong(run, USAGE, "node 0", *arguments)


def test_a_layer_that_the_model_lacks_is_refused_before_anything_is_queued(run: Run, client: Client) -> None:
    wrong(run, USAGE, "model.layers.4", *SUBMIT, "--grid", "layer=0:5", "-S", "position=0")
    assert client.jobs() == []


def test_a_wrong_parameter_name_on_the_command_line(run: Run, client: Client) -> None:
    wrong(run, USAGE, "no parameter 'layr'", *SUBMIT, "--grid", "layr=0:4", hint="did you mean 'layer'?")


def test_a_wrong_parameter_name_in_a_sweep_names_its_line(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP.replace("layer:", "layr:"))
    message = "sweep.yaml:6: parameters.layr: the experiment has no parameter 'layr'"
    wrong(run, USAGE, message, "sweep", "run", "sweep.yaml", hint="did you mean 'layer'?")


def test_a_parameter_without_a_value(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP.replace("  answer: Paris\n", ""))
    wrong(run, USAGE, "parameter 'answer' has no value", "sweep", "plan", "sweep.yaml")
    wrong(run, USAGE, "'position'", *SUBMIT, "--grid", "layer=0:4")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep", "plan", "swep.yaml"),
        ("submit", "jobb.py", "--model", "toy"),
        ("submit", "g.json", "--model", "toy"),
        ("graph", "show", "g.json"),
    ],
)
def test_a_missing_file(run: Run, client: Client, arguments: tuple[str, ...]) -> None:
    wrong(
        run, NOT_FOUND, f"there is no file {arguments[2] if arguments[0] != 'submit' else arguments[1]!r}", *arguments
    )


def test_a_file_of_values_that_is_missing_or_broken(run: Run, client: Client, folder: Path) -> None:
    wrong(run, NOT_FOUND, "there is no file 'v.json'", *SUBMIT, "--grid", "layer=@v.json")
    (folder / "v.json").write_text("[1, 2")
    wrong(run, USAGE, "v.json:1: ", *SUBMIT, "--grid", "layer=@v.json")
    (folder / "sweep.yaml").write_text(SWEEP.replace("{range: [0, 4]}", "{file: layers.csv}"))
    wrong(run, NOT_FOUND, "sweep.yaml:6: parameters.layer.file: ", "sweep", "plan", "sweep.yaml", hint="looked in")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (SWEEP.replace("[0, 4]", "[0, 4"), "sweep.yaml:6: ", ""),
        (
            SWEEP.replace("model: toy", "modle: toy"),
            "sweep.yaml:3: modle: unknown key 'modle'",
            "did you mean 'model'?",
        ),
        (SWEEP + "name: again\n", "sweep.yaml:10: key 'name' is given twice (first on line 2)", ""),
        (SWEEP + "method: radom\n", "sweep.yaml:10: method: must be 'grid', 'zip', 'list' or 'random'", "'random'"),
        ("", "sweep.yaml:1: a sweep file is a mapping of keys", "version: 1"),
    ],
)
def test_broken_yaml(run: Run, client: Client, folder: Path, text: str, message: str, hint: str) -> None:
    (folder / "sweep.yaml").write_text(text)
    wrong(run, USAGE, message, "sweep", "run", "sweep.yaml", hint=hint)
    assert client.jobs() == []


def test_a_prompt_with_no_tokens(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP.replace("the cat sat", "''"))
    wrong(run, USAGE, "token", "sweep", "run", "sweep.yaml")


def test_a_position_outside_the_prompt_names_position_and_length(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 3]", "[0, 4]"))
    wrong(run, USAGE, "position 3 is outside the 3 tokens", "sweep", "run", "sweep.yaml")
    wrong(run, USAGE, "position 7 is outside the 3 tokens", *SUBMIT, "-S", "layer=0", "-S", "position=7")
    assert client.jobs() == []


def test_an_answer_that_is_not_one_token(run: Run, client: Client) -> None:
    wrong(run, USAGE, "answer", *SUBMIT[:-1], "answer=the cat", "--grid", "layer=0:4", "-S", "position=0")


def test_an_unknown_model(run: Run, client: Client, folder: Path) -> None:
    wrong(run, NOT_FOUND, "toi", *SUBMIT[:3], "toi", *SUBMIT[4:], hint="toy")
    (folder / "sweep.yaml").write_text(SWEEP.replace("model: toy", "model: toi"))
    wrong(run, NOT_FOUND, "toi", "sweep", "plan", "sweep.yaml", hint="toy")
    wrong(run, NOT_FOUND, "toi", "model", "show", "toi", hint="toy")
    wrong(run, NOT_FOUND, "toi", "worker", "run", "--model", "toi", "--once", hint="toy")


def test_an_unknown_job(run: Run, client: Client) -> None:
    for verb in ("show", "explain", "logs", "wait", "cancel", "hold", "release", "retry", "watch"):
        wrong(run, NOT_FOUND, "there is no job 7", verb, 7)
    for verb in ("show", "get", "verify"):
        wrong(run, NOT_FOUND, "there is no job 7", "results", verb, 7)


def test_a_job_without_results_says_what_it_waits_for(run: Run, client: Client) -> None:
    assert run("sweep", "run", "sweep.yaml", "--parsable").out == "1\n"
    wrong(
        run, NOT_FOUND, "job 1 has no results yet: it is PENDING", "results", "show", 1, hint="worker run --model toy"
    )


def test_waiting_for_longer_than_the_timeout(run: Run, client: Client) -> None:
    assert run("sweep", "run", "sweep.yaml").code == 0
    ran = run("wait", 1, "--timeout", 0)
    assert ran.code == TIMED_OUT
    assert "error: job 1 is still PENDING after 0 s" in ran.err
    assert "hint: a worker runs it: `ndif-batch worker run --model toy`" in ran.err


def test_a_queue_that_was_never_made(run: Run) -> None:
    wrong(run, UNAVAILABLE, "there is no queue at sqlite", "ls", hint="ndif-batch db upgrade")


def test_a_wrong_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_BATCH_MAX_BATCH_TOKENS", "many")
    wrong(run, USAGE, "setting 'max_batch_tokens'", "ls")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("lss",), "No such command 'lss'", "--help"),
        (("ls", "--foo"), "No such option: --foo", "ndif-batch ls --help"),
        (("show",), "Missing argument 'JOB'", "ndif-batch show --help"),
        (("show", "x"), "must be a whole number", "ndif-batch show --help"),
        (("submit", "job.py"), "Missing option '--model'", "ndif-batch submit --help"),
        (("ls", "-o", "xml"), "xml", "ndif-batch ls --help"),
    ],
)
def test_a_wrong_command_line(run: Run, arguments: tuple[str, ...], message: str, hint: str) -> None:
    wrong(run, USAGE, message, *arguments, hint=hint)


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("def build(lm:\n    pass\n", "job.py:1: '(' was never closed", "in `def build(lm:`"),
        ("import nothing_of_that_name\n", "job.py:1: ModuleNotFoundError: No module named", "import nothing"),
        ("def biuld(lm): ...\n", "job.py has no function build(lm)", "did you mean 'biuld'?"),
        ("", "job.py has no function build(lm)", "define `def build(lm): …`"),
        ("import sys\nsys.exit(0)\n", "job.py:2: SystemExit: 0", "in `sys.exit(0)`"),
        ("def build(lm):\n    return 3\n", "job.py: build(lm) returned int", "return the trace"),
        ("def build(lm):\n    x = {}\n    return x['y']\n", "job.py:3: KeyError: 'y'", "in `return x['y']`"),
    ],
)
def test_a_job_file_that_fails_names_the_users_line(
    run: Run, client: Client, folder: Path, source: str, message: str, hint: str
) -> None:
    (folder / "job.py").write_text(source)
    wrong(run, USAGE, message, *SUBMIT, hint=hint)


def test_a_graph_that_breaks_a_rule_names_node_and_rule(run: Run, client: Client, folder: Path) -> None:
    (folder / "g.json").write_text('{"version": 1, "params": {}, "runs": [], "nodes": [{"op": "exec"}]}')
    wrong(run, USAGE, "node 0", "graph", "validate", "g.json")
    (folder / "g.json").write_text("{")
    wrong(run, USAGE, "g.json:1: ", "graph", "validate", "g.json")


def test_a_value_that_is_no_assignment_or_of_the_wrong_type(run: Run, client: Client) -> None:
    wrong(run, USAGE, "'layer' is not name=value", *SUBMIT, "--grid", "layer", hint="layer=0:12")
    wrong(run, USAGE, "the range 3:3 is empty", *SUBMIT, "--grid", "layer=3:3", "-S", "position=0")


def test_a_state_that_does_not_permit_the_change(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    assert run("cancel", 1).code == 0
    wrong(run, USAGE, "job 1", "cancel", 1)


# A full disk, for real: a file system of its own where the machine permits one, a limit on file sizes everywhere.


@pytest.fixture
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system with room for 256 KiB."""
    place = tmp_path_factory.mktemp("full")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with (place / "rest").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_under_the_queue(run: Run, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_BATCH_DATABASE_URL", f"sqlite:///{full / 'queue.db'}")
    fill(full)
    wrong(run, UNAVAILABLE, "queue.db", "db", "upgrade")


def test_a_full_disk_under_an_export(run: Run, client: Client, full: Path) -> None:
    from tests.worker.toy_engine import ToyEngine
    from tests.worker.working import working

    run("sweep", "run", "sweep.yaml")
    with working(client, ToyEngine()) as worker:
        worker.run()
    fill(full)
    wrong(run, UNAVAILABLE, "No space left on device", "results", "export", 1, full / "out.npz")
    assert not (full / "out.npz").exists()


def test_a_full_disk_under_a_submission(run: Run, client: Client, settled: Path) -> None:
    """No file may grow: what a full quota does."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "from ndif_batch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, "sweep", "run", "sweep.yaml"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == UNAVAILABLE, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    assert client.jobs() == []


def test_a_full_disk_under_stdout(client: Client) -> None:
    code = "import sys; from ndif_batch.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with Path("/dev/full").open("w") as full_output:
        done = subprocess.run(
            [sys.executable, "-c", code, "ls"],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=full_output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == UNAVAILABLE
    assert done.stderr.startswith("error: No space left on device")
