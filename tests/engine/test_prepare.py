"""What tasks share because they come from one graph, and what they do not."""

from ndif_batch.engine.prepare import Preparation
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run
from ndif_batch.sweep.task import Task
from tests.families import family


def filled(number: float) -> Task:
    nodes = (Node("full", ((2,), number)), Node("save", (NodeRef(0),), name="x"))
    return Task(Graph({}, (Run("r", (1, 2)),), nodes))


def test_graphs_that_nobody_keeps_are_not_taken_for_one_another() -> None:
    preparation = Preparation(family("llama").loaded, solo=False, constants={})
    programs = [preparation.task(index, filled(float(index))).program for index in range(50)]
    assert [program.graph.nodes[0].args[1] for program in programs] == list(range(50))


def test_tasks_of_one_graph_have_one_program() -> None:
    preparation = Preparation(family("llama").loaded, solo=False, constants={})
    task = filled(1.0)
    assert preparation.task(0, task).program is preparation.task(1, task).program
