"""A job is followed task by task, job by job, and in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import structlog

from ndif_batch import Client, IntegrityError, NotFoundError, TaskError, TimedOutError, UsageError, as_completed
from ndif_batch.archive import TaskStatus
from ndif_batch.client.picture import Axis, Picture
from ndif_batch.client.svg import MISSING, MOST, svg
from ndif_batch.sweep.space import Axis as SpaceAxis
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import Task
from ndif_batch.worker.ending import Until
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with structlog.testing.capture_logs(), toy.client(tmp_path) as opened:
        yield opened


def third(task: Task) -> None:
    if task.id == 3:
        raise TaskError("no <such> thing", node=2)


@pytest.fixture
def one_shard(client: Client) -> Callable[[float], None]:
    """A pause in which a worker runs one shard of three tasks; task 3 fails."""

    def pause(seconds: float) -> None:
        with working(client, ToyEngine(third), max_tokens=9) as here:
            here.run(Until(one=True))

    return pause


def test_each_task_is_given_once_as_its_shard_is_done(client: Client, one_shard: Callable[[float], None]) -> None:
    job = submit(client)
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append([task.id for task in found])
        one_shard(seconds)

    found = []
    for task in job.as_completed(pause=pause):
        found.append(task)
    assert pauses == [[], [0, 1, 2], [0, 1, 2, 3, 4, 5], list(range(9))]
    assert [task.id for task in found] == list(range(12))
    assert [task.status for task in found] == [*[TaskStatus.SAVED] * 3, TaskStatus.FAILED, *[TaskStatus.SAVED] * 8]
    assert found[7].bindings == {"prompt": "the cat sat", "answer": "Paris", "layer": 2, "position": 1}
    np.testing.assert_array_equal(found[7]["residual"], np.arange(toy.WIDTH) + 210)
    assert found[3].saves == {}
    assert job.state == "FAILED"


def test_ragged_saves_have_the_length_of_their_task(client: Client, one_shard: Callable[[float], None]) -> None:
    prompts = ["the cat sat", "the", "the dog ran far"]
    space = Space((SpaceAxis("prompt", {"prompt": prompts}),), {"layer": 1})
    job = client.submit(client.prepare(toy.whole(), space, toy.NAME))
    found = list(job.as_completed(pause=one_shard))
    assert [task["residual"].shape for task in found] == [(3, toy.WIDTH), (1, toy.WIDTH), (4, toy.WIDTH)]
    (first,) = found[0].saves
    assert first == "residual"


def test_a_damaged_shard_is_told_and_not_given(client: Client, one_shard: Callable[[float], None]) -> None:
    job = submit(client)
    for _ in range(4):
        one_shard(0)
    shard = job.refresh().record.store / "logit" / "c.2.0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    tasks = job.as_completed()
    assert [next(tasks).id for _ in range(6)] == list(range(6))
    with pytest.raises(IntegrityError, match=r"the results of tasks 6 to 8 in .* are damaged"):
        next(tasks)


def test_tasks_and_jobs_that_do_not_end_in_time_are_told(client: Client) -> None:
    job = submit(client)
    clock = iter(range(100)).__next__
    with pytest.raises(TimedOutError, match="job 1 is still PENDING after 3 s"):
        list(job.as_completed(3, pause=lambda seconds: None, clock=clock))
    with pytest.raises(TimedOutError, match="1 jobs have not ended after 3 s"):
        list(as_completed([job], 3, pause=lambda seconds: None, clock=clock))
    job.cancel()
    assert list(job.as_completed()) == []
    assert list(as_completed([job])) == [job]


def test_removed_results_are_told(client: Client, one_shard: Callable[[float], None]) -> None:
    job = submit(client)
    for _ in range(4):
        one_shard(0)
    job.refresh().remove_results()
    with pytest.raises(NotFoundError, match="the results of job 1 were removed on"):
        list(job.as_completed())


def test_jobs_are_given_in_the_order_in_which_they_end(client: Client, one_shard: Callable[[float], None]) -> None:
    slow, fast = submit(client), submit(client, priority=1)
    assert [job.id for job in as_completed([slow, fast], pause=one_shard)] == [fast.id, slow.id]


def shown(html: str) -> ElementTree.Element:
    """The page as elements; every tag is closed and every text escaped."""
    return ElementTree.fromstring(html.replace("<br>", "<br/>"))


def boxes(page: ElementTree.Element) -> list[ElementTree.Element]:
    return [one for one in page.iter() if one.tag.endswith("rect")]


def test_a_notebook_shows_progress_failures_and_what_is_saved_so_far(
    client: Client, one_shard: Callable[[float], None]
) -> None:
    job = submit(client, name="<b>&mine")
    waiting = shown(job._repr_html_())
    assert "job 1 · <b>&mine" in "".join(waiting.itertext())
    assert boxes(waiting) == []
    one_shard(0)
    one_shard(0)
    page = shown(job.refresh()._repr_html_())
    text = "".join(page.itertext())
    bar = page.find("progress")
    assert bar is not None
    assert (bar.get("value"), bar.get("max")) == ("6", "12")
    assert "5 of 12 tasks, 1 failed" in text
    assert "task 3: no <such> thing" in text
    missing = [box.get("fill") == MISSING for box in boxes(page)]
    assert missing == [False] * 3 + [True] + [False] * 2 + [True] * 6
    assert "layer=0, position=1: " in text


def test_a_notebook_draws_the_first_two_axes_with_the_mean_over_the_others(
    client: Client, one_shard: Callable[[float], None]
) -> None:
    layers, positions = SpaceAxis("layer", {"layer": range(3)}), SpaceAxis("position", {"position": range(2)})
    answers = SpaceAxis("answer", {"answer": ["Paris", "Rome"]})
    space = Space((layers, positions, answers), {"prompt": "the cat sat"})
    job = client.submit(client.prepare(toy.reading(), space, toy.NAME))
    one_shard(0)
    page = shown(job.refresh()._repr_html_())
    assert "logit, mean over answer" in "".join(page.itertext())
    logit = np.asarray(job.results()["logit"])
    assert [box.findtext("{http://www.w3.org/2000/svg}title") for box in boxes(page)] == [
        f"layer={layer}, position={position}: {mean(logit[layer, position])}"
        for layer in range(3)
        for position in range(2)
    ]


def mean(values: Any) -> str:
    """Of those that are there, as a picture tells it."""
    there = values[~np.isnan(values)]
    return f"{there.mean():.4g}" if there.size else "no number"


def test_a_job_is_watched_on_stderr_outside_a_notebook(
    client: Client, one_shard: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    job = submit(client)
    for _ in range(4):
        one_shard(0)
    capsys.readouterr()
    job.watch()
    assert capsys.readouterr().err == "<job 1 'residual-logit' FAILED 11/12 tasks, 1 failed>\n"


def test_in_a_notebook_a_job_is_shown_in_one_place_and_only_when_it_has_gone_on(
    client: Client, one_shard: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    displayed: list[tuple[str, Any]] = []
    place = SimpleNamespace(update=lambda shown: displayed.append(("update", shown)))

    def display(shown: Any, display_id: bool) -> Any:
        displayed.append(("display", shown))
        return place

    ipython, front = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    front.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", front)
    job = submit(client)
    from ndif_batch.client.notebook import Live

    live = Live(job, "logit")
    for _ in range(2):
        live.look(job.refresh().record)
        live.look(job.refresh().record)
        one_shard(0)
    assert [kind for kind, _ in displayed] == ["display", "update"]
    assert "3 of 12 tasks" in displayed[1][1]._repr_html_()
    assert repr(displayed[1][1]) == "<job 1 'residual-logit' RUNNING 3/12 tasks>"
    with pytest.raises(UsageError, match="'residual' is not a single number"):
        Live(job, "residual").look(job.refresh().record)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (300, 700)])
def test_an_svg_has_a_box_for_each_place_and_few_of_many(shape: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(0).normal(size=shape)
    axes = tuple(Axis(f"<{k}>", [f"label {i}" for i in range(n)]) for k, n in enumerate(shape))
    page = shown(f"<div>{svg(Picture('a < b', drawn, axes))}</div>")
    rows, columns = (1, 1, *shape)[-2:]
    assert len(boxes(page)) == (rows * columns if rows * columns < 30 else 75 * 88) * bool(shape)
    assert len(boxes(page)) <= MOST**2
    assert "a < b" in "".join(page.itertext())


def test_bars_hang_from_zero_and_labels_do_not_touch() -> None:
    picture = Picture("x", np.array([-1.0, np.nan, 2.0]), (Axis("layer", ["first of all", "second", "third"]),))
    page = shown(svg(picture))
    low, missing, high = boxes(page)
    assert [box.find("{http://www.w3.org/2000/svg}title").text for box in (low, missing, high)] == [  # type: ignore[union-attr]
        "layer=first of all: -1",
        "layer=second: no number",
        "layer=third: 2",
    ]
    assert missing.get("fill") == MISSING
    below, above = (float(box.get("y", "")) for box in (low, high))
    assert above + float(high.get("height", "")) == pytest.approx(below)
    assert "second" not in [text.text for text in page.iter() if text.tag.endswith("text")]
