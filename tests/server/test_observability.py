"""The alert rules and the dashboard ask for metrics and labels that there are, in expressions that Prometheus reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from ndif_batch.client import Client
from ndif_batch.queue.telemetry import BUCKETS, Gauge
from ndif_batch.scheduler.tick import LEADER
from ndif_batch.server.metrics import QueueCollector, metrics
from tests import toy
from tests.worker.working import submit

CONFIGS = Path(__file__).parents[2] / "configs"
DASHBOARD: dict[str, Any] = json.loads((CONFIGS / "grafana" / "ndif_batch.json").read_text())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CONFIGS / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [*(rule["expr"] for rule in RULES), *TARGETS]
IN_DESIGN = (
    "tasks",
    "jobs",
    "task_wait_seconds",
    "pass_seconds",
    "pass_tasks",
    "pass_tokens",
    "tokens_shared_total",
    "tasks_finished_total",
    "verify_deviation",
    "workers",
    "worker_heartbeat_age_seconds",
    "model_load_seconds",
    "gpu_memory_bytes",
    "gpu_busy_ratio",
    "lease_seconds",
    "tick_seconds",
    "leader",
    "archive_bytes",
    "build_info",
)


@pytest.fixture
def known(behind: Client) -> dict[str, set[str]]:
    """Every series of a queue in which everything has happened, with the labels of each."""
    queue = behind.queue
    behind.settings.archive.mkdir(exist_ok=True)
    submit(behind)
    queue.add_pilot("toy-1", toy.NAME, "local", {}, actor="test")
    worker = queue.register_worker(toy.NAME, "here", 1)
    queue.lease(worker, toy.NAME, 10, 60.0)
    gauge = Gauge()
    for name in BUCKETS:
        gauge.observe(name, 1)
    gauge.deviates(0.1)
    from ndif_batch.queue.cluster import DeviceReading

    queue.heartbeat(worker, 60.0, {}, DeviceReading("cpu", 1, 2, 0.5, gauge.measured))
    queue.report("scheduler here", gauge.measured)
    queue.acquire_leader(LEADER, "here", 60)
    found: dict[str, set[str]] = {}
    for metric in QueueCollector(queue, behind.settings.archive).collect():
        found.setdefault(metric.name, set())
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """The parts of an expression that name a metric."""
    if isinstance(expression, promql.VectorSelector):
        yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        part = getattr(expression, name, None)
        if part is not None:
            yield from selectors(part)
    for part in getattr(expression, "args", None) or ():
        yield from selectors(part)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_there_are(known: dict[str, set[str]], text: str) -> None:
    found = list(selectors(promql.parse(text.replace("$model", "toy"))))
    assert found
    for selector in found:
        assert selector.name in known, text
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name], text


def test_every_metric_of_the_design_is_there_and_none_names_a_job_or_a_user(known: dict[str, set[str]]) -> None:
    assert {f"ndif_batch_{name}" for name in IN_DESIGN} <= set(known)
    assert set().union(*known.values()) == {"model", "state", "worker", "outcome", "result", "le", "version"}


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 7
    for rule in RULES:
        assert rule["alert"].startswith("NdifBatch")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def promtool(*arguments: object, stdin: bytes = b"") -> str:
    """What Prometheus' own tool says of its input, which it must find right."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", CONFIGS / "prometheus" / "alerts.yaml")
    cases = CONFIGS / "prometheus" / "alerts_test.yaml"
    promtool("test", "rules", cases)
    told = [case for test in yaml.safe_load(cases.read_text())["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        assert {case["alertname"] for case in told if bool(case["exp_alerts"]) is fires} == {r["alert"] for r in RULES}


def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{i}", "expr": expr.replace("$model", "toy")} for i, expr in enumerate(TARGETS)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}).replace("$__rate_interval", "5m"))
    assert f"{len(TARGETS)} rules found" in promtool("check", "rules", file)


def test_prometheus_finds_nothing_to_complain_of_in_what_it_reads(known: dict[str, set[str]], behind: Client) -> None:
    text = metrics(behind.queue, behind.settings.archive)
    assert all(f"# TYPE ndif_batch_{name} ".encode() in text for name in IN_DESIGN)
    assert promtool("check", "metrics", stdin=text) == ""


def test_the_dashboard_is_one_that_grafana_opens() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "model"}
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        places |= cells
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
