"""The benchmarks of the engine: values are compared before times are told, and reports are what their schema says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMA = json.loads((ROOT / "benchmarks" / "result.schema.json").read_text())
NO_PEERS = "no-peers/bin/python"
SMALL = {
    "patching": ["--only", "raw_rows", "nnsight_32", "engine", "whole"],
    "extraction": ["--prompts", "9", "--tokens", "3", "20"],
    "mixed_users": ["--requests", "9", "--tokens", "3", "12"],
    "overhead": ["--tasks", "6", "--tokens", "4", "--nodes", "2", "6", "--repeats", "2"],
}


def bench(name: str, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--threads", "1", "--rounds", "1"]
    command += ["--shape", "llama-tiny", "--peers", NO_PEERS, "--output", str(output), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def read(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(output.read_text())
    jsonschema.validate(report, SCHEMA)
    return report


@pytest.mark.parametrize("name", SMALL)
def test_the_engine_gives_the_values_of_the_baseline_and_those_who_are_absent_are_named(
    name: str, tmp_path: Path
) -> None:
    done = bench(name, tmp_path / "report.json", *SMALL[name])
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "report.json")
    by_name = {(row["contender"], row["case"]): row for row in report["results"]}
    assert "engine" in {contender for contender, _ in by_name}
    assert all(row["deviation"] <= 1e-4 for row in by_name.values())
    assert all(row["median"] in row["seconds"] or len(row["seconds"]) % 2 == 0 for row in by_name.values())
    assert "nnsight" in {reason.partition(",")[0] for reason in report["skipped"].values()}
    assert report["benchmark"] == name
    assert report["model"]["layers"] == 2


@pytest.mark.slow
def test_patching_is_the_same_the_whole_way_and_in_another_family(tmp_path: Path) -> None:
    done = bench("patching", tmp_path / "report.json", "--only", "engine", "whole", "--shape", "gpt2-tiny")
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "report.json")
    assert [row["contender"] for row in report["results"]] == ["raw_hooks", "engine", "whole"]
    assert report["work"] == {"runs": 12, "tokens": 6}


def test_values_that_differ_give_no_report(tmp_path: Path) -> None:
    done = bench("extraction", tmp_path / "report.json", "--only", "engine", "--prompts", "2", "--tolerance=-1")
    assert done.returncode == 1
    assert "values differ by more than -1" in done.stderr
    assert not (tmp_path / "report.json").exists()


def test_a_contender_is_wrong_if_any_value_of_any_round_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from contenders.protocol import Measured
    from contest import Contender, Contest, summarise

    def measured(*values: float) -> Measured:
        return Measured({"": [2.0]}, {"": np.array(values)}, {}, {})

    right = measured(1, 2, -4)
    rounds = {
        "base": [right, right],
        "same": [right, measured(1, 2, -4.0001)],
        "once": [right, measured(1, 2.1, -4)],
        "nan": [right, measured(1, float("nan"), -4)],
        "fewer": [measured(1, 2), right],
    }
    found = Contest(summarise([Contender(name, name, name) for name in rounds], rounds), {}, 1e-4)
    assert found.wrong() == ["once", "nan", "fewer"]
    assert [row.deviation for row in found.rows[:3]] == [0, pytest.approx(2.5e-5), pytest.approx(0.025)]


@pytest.mark.slow
def test_scaling_fits_a_line_to_each_series_and_draws_it(tmp_path: Path) -> None:
    sizes = ["--tasks", "1", "2", "9", "--tokens", "2", "5", "--layer-counts", "1", "3", "--fixed", "4", "3"]
    done = bench("scaling", tmp_path / "report.json", *sizes, "--repeats", "1", "--pictures", str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "report.json")
    assert {name: series["sizes"] for name, series in report["series"].items()} == {
        "tasks": [1, 2, 9],
        "tokens": [2, 5],
        "layers": [1, 3],
    }
    for series in report["series"].values():
        fitted = [series["intercept"] + series["slope"] * size for size in series["sizes"]]
        off = [abs(seconds / line - 1) for seconds, line in zip(series["seconds"], fitted, strict=True)]
        assert series["deviation"] == pytest.approx(max(off))
    assert (tmp_path / report["picture"]).read_bytes().startswith(b"\x89PNG")


def test_a_worker_drains_the_long_jobs_and_tells_how_long_it_was_at_work(tmp_path: Path) -> None:
    done = bench("busy", tmp_path / "report.json", "--pairs", "3", "--prompts", "20", "--tokens", "3", "9")
    assert done.returncode == 0, done.stderr
    jobs = read(tmp_path / "report.json")["jobs"]
    assert [(one["job"], one["tasks"], one["gpu"]) for one in jobs] == [
        ("patching", 3 * 2 * 6, None),
        ("extraction", 20, None),
    ]


@pytest.mark.parametrize("name", ["patching", "extraction", "mixed_users", "overhead", "scaling", "busy"])
def test_committed_reports_fit_the_schema(name: str) -> None:
    for path in (ROOT / "benchmarks" / "results").glob(f"{name}-*.json"):
        report = read(path)
        assert report["benchmark"] == name
        assert all(row["deviation"] <= report["tolerance"] for row in report.get("results", ()))
