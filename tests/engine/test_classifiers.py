"""Models that give one thing for all tokens: what comes before that is packed, tasks that touch it run alone."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from transformers import AutoConfig, BertForSequenceClassification

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import PLAIN, TOKENS, Subject
from tests.oracle import assert_equal, oracle

LAYER = "bert.encoder.layer.{layer}.output"
PROMPTS = ((5, 9, 2, 7, 30), (8, 3, 3), (40,))


def test_a_classifier_of_whole_texts_gives_each_run_its_own() -> None:
    torch.manual_seed(3)
    config: Any = AutoConfig.for_model("bert", **PLAIN, **TOKENS, num_labels=3)
    model = BertForSequenceClassification(config).train(False)
    subject = Subject(wrap(deepcopy(model)), model)
    layout = subject.loaded.layout
    assert layout.arrangement is Arrangement.PACKED
    assert ("classifier.output", ()) in layout.alone
    at = (SliceArg(), -1)
    nodes = (
        Node("read", run=0, site=LAYER),
        Node("getitem", (NodeRef(0), at)),
        Node("write", (NodeRef(1),), run=1, site=LAYER, index=at),
        Node("read", run=1, site="{end}.output"),
        Node("save", (NodeRef(3),), name="x"),
    )
    params = {"one": ParamType.PROMPT, "other": ParamType.PROMPT, "layer": ParamType.INT, "end": ParamType.STR}
    graph = Graph(params, (Run("one", ParamRef("one")), Run("other", ParamRef("other"))), nodes)
    for end, most in (("bert.encoder.layer.2", 3), ("classifier", 99)):
        tasks = [
            Task(graph, {"one": one, "other": other, "layer": layer, "end": end})
            for one in PROMPTS
            for other in PROMPTS
            for layer in range(3)
        ]
        engine = Engine(subject.loaded)
        for outcome in engine.run(tasks):
            assert outcome.error is None, outcome.error
            truth = oracle(subject, tasks[outcome.index])
            assert_equal(end, outcome.saves["x"], truth["x"])
        assert engine.counters.passes <= most
