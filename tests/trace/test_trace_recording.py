"""What is recorded: one node for each thing done, in order, equal for equal experiments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import Node, NodeRef, ParamRef, ParamType, Run, SliceArg, TensorRef
from ndif_batch.graph.serialize import canonical
from ndif_batch.trace import LanguageModel, Trace, param

TORCH: Any = torch
ROOT = Path(__file__).parents[2]
ALL = SliceArg()


def patching(lm: LanguageModel) -> Trace:
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = lm.model.layers[param("layer")].output
        with t.invoke(param("corrupted")):
            lm.model.layers[param("layer")].output[:, param("position")] = clean[:, param("position")]
            logits = lm.lm_head.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
    return t


def test_the_example_of_the_design_becomes_the_expected_graph(lm: LanguageModel) -> None:
    graph = patching(lm).graph
    where = (ALL, ParamRef("position"))
    assert graph.params == {
        "clean": ParamType.PROMPT,
        "layer": ParamType.INT,
        "corrupted": ParamType.PROMPT,
        "position": ParamType.INT,
        "answer": ParamType.INT,
        "distractor": ParamType.INT,
    }
    assert graph.runs == (Run("clean", ParamRef("clean")), Run("corrupted", ParamRef("corrupted")))
    assert graph.nodes == (
        Node("read", run=0, site="model.layers.{layer}.output"),
        Node("getitem", (NodeRef(0), where)),
        Node("write", (NodeRef(1),), run=1, site="model.layers.{layer}.output", index=where),
        Node("read", run=1, site="lm_head.output"),
        Node("getitem", (NodeRef(3), (0, -1, ParamRef("answer")))),
        Node("getitem", (NodeRef(3), (0, -1, ParamRef("distractor")))),
        Node("sub", (NodeRef(4), NodeRef(5))),
        Node("save", (NodeRef(6),), name="logit_diff"),
    )


def test_the_same_experiment_has_the_same_bytes_in_another_process(lm: LanguageModel) -> None:
    code = (
        "import sys; from tests.site_maps import info, llama; from ndif_batch.trace import LanguageModel;"
        "from ndif_batch.graph.serialize import canonical; from tests.trace.test_trace_recording import patching;"
        "lm = LanguageModel(info(llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50)));"
        "sys.stdout.buffer.write(canonical(patching(lm).graph))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert other.stdout == canonical(patching(lm).graph) == canonical(patching(lm).graph)


def test_recording_needs_no_torch() -> None:
    code = (
        "import sys; from tests.site_maps import info, smollm2; from ndif_batch.trace import LanguageModel, param\n"
        "lm = LanguageModel(info(smollm2()))\n"
        "with lm.trace(param('prompt')) as t:\n"
        "    (lm.lm_head.output[0, -1].softmax(-1) * 2).save('p')\n"
        "t.scan(prompt=[1, 2])\n"
        "print(*(name for name in ('torch', 'transformers', 'sqlalchemy', 'zarr') if name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == ""


def test_spellings_of_one_call_give_the_same_node(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        h = lm.model.norm.output
        for i, p in enumerate((h.softmax(-1), h.softmax(dim=-1), TORCH.softmax(h, -1), TORCH.softmax(h, axis=-1))):
            p.save(f"p{i}")
        TORCH.nn.functional.softmax(h, dim=-1).save("p4")
    softmaxes = {node for node in t.graph.nodes if node.op == "softmax"}
    assert softmaxes == {Node("softmax", (NodeRef(0), -1))}


def test_a_value_that_nothing_takes_leaves_no_node(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        lm.model.layers[0].output.softmax(-1)
        lm.model.layers[1].output[:, 0] = 0.0
        lm.lm_head.output.save("logits")
    assert [node.op for node in t.graph.nodes] == ["write", "read", "save"]


def test_operators_and_their_reflections_keep_the_order_of_operands(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        h = lm.model.norm.output
        (2 - h).save("a")
        (h - 2).save("b")
        (2**h).save("c")
        (-h // 3 % 2).save("d")
        (h @ h.mT).save("e")
        ((h > 0) & (h <= 1)).save("f")
    nodes = t.graph.nodes
    assert nodes[1] == Node("sub", (2, NodeRef(0)))
    assert nodes[3] == Node("sub", (NodeRef(0), 2))
    assert nodes[5] == Node("pow", (2, NodeRef(0)))
    assert [node.op for node in nodes[7:10]] == ["neg", "floordiv", "mod"]
    assert nodes[11] == Node("transpose", (NodeRef(0), -2, -1))
    assert [(node.op, node.args) for node in nodes[14:17]] == [
        ("gt", (NodeRef(0), 0)),
        ("le", (NodeRef(0), 1)),
        ("bitwise_and", (NodeRef(14), NodeRef(15))),
    ]


def test_a_module_is_applied_and_its_weight_read_outside_of_any_run(lm: LanguageModel) -> None:
    with lm.trace() as t:
        with t.invoke([1, 2, 3]):
            h = lm.model.layers[1].output
        lm.lm_head(lm.model.norm(h)).save("logits")
        (h * lm.model.norm.weight).save("scaled")
    assert t.graph.nodes == (
        Node("read", run=0, site="model.layers.1.output"),
        Node("call", (NodeRef(0),), site="model.norm"),
        Node("call", (NodeRef(1),), site="lm_head"),
        Node("save", (NodeRef(2),), name="logits"),
        Node("weight", site="model.norm.weight"),
        Node("mul", (NodeRef(0), NodeRef(4))),
        Node("save", (NodeRef(5),), name="scaled"),
    )


def test_control_and_output_nodes_carry_their_run_and_name(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        mlp = lm.model.layers[0].mlp
        mlp.skip(mlp.input * 0)
        h = lm.model.layers[1].output.save("h", dims=("batch", "token", "hidden"))
        t.log("norm", h.norm())
        t.stop()
    ops = {node.op: node for node in t.graph.nodes}
    assert ops["skip"] == Node("skip", (NodeRef(1),), run=0, site="model.layers.0.mlp")
    assert ops["save"].dims == ("batch", "token", "hidden")
    assert ops["print"].name == "norm"
    assert ops["stop"] == Node("stop", run=0)


def test_a_tuple_site_is_read_and_written_by_item(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        attention = lm.model.layers[1].self_attn
        attention.output[0][:, 1] = 0.0
        attention.output[0][0].save("heads")
    assert t.graph.nodes == (
        Node("write", (0.0,), run=0, site="model.layers.1.self_attn.output", index=(0, ALL, 1)),
        Node("read", run=0, site="model.layers.1.self_attn.output"),
        Node("getitem", (NodeRef(1), (0,))),
        Node("getitem", (NodeRef(2), (0,))),
        Node("save", (NodeRef(3),), name="heads"),
    )
    assert t.scan()["heads"].shape == (3, 8)


def test_a_tensor_becomes_a_constant_named_by_its_content(lm: LanguageModel) -> None:
    mine = torch.arange(8.0)
    with lm.trace([1, 2]) as t:
        h = lm.model.norm.output
        (h * mine).save("torch")
        (np.arange(8, dtype=np.float32) * h).save("numpy")
        (mine - h).save("left")
        TORCH.full((), 3.0).add(h).save("scalar")
        mine.add_(1)
    refs = [arg for node in t.graph.nodes for arg in node.args if isinstance(arg, TensorRef)]
    assert len(refs) == 4
    assert len(set(refs)) == len(t.constants) == 2
    assert torch.equal(torch.as_tensor(t.constants[refs[0].digest]), torch.arange(8.0))
    assert t.scan()["scalar"].shape == (1, 2, 8)


def test_a_bfloat16_tensor_can_be_a_constant(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        (lm.model.norm.output * torch.ones(8, dtype=torch.bfloat16)).save("x")
    assert t.scan()["x"].dtype == "float32"


def test_a_constant_of_complex_numbers_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="cannot be of dtype complex64"), lm.trace([1, 2]):
        lm.model.norm.output * torch.ones(8, dtype=torch.complex64)


def test_a_recorded_value_indexes_a_tensor_of_mine(lm: LanguageModel) -> None:
    table = TORCH.randn(50, 4)
    with lm.trace([1, 2]) as t:
        best = lm.lm_head.output[0].argmax(-1)
        table[best].save("rows")
        table[best, :2].save("corner")
    assert {name: value.shape for name, value in t.scan().items()} == {"rows": (2, 4), "corner": (2, 2)}


def test_a_shape_is_part_of_the_graph_and_can_be_counted_with(lm: LanguageModel) -> None:
    with lm.trace(param("prompt")) as t:
        h = lm.model.norm.output
        h.reshape(h.shape[1], 2, -1).save("heads")
        h[:, h.size(1) - 1].save("last")
    for tokens in (3, 5):
        found = t.scan(prompt=[1] * tokens)
        assert found["heads"].shape == (tokens, 2, 4)
        assert found["last"].shape == (1, 8)


def test_results_with_several_parts_unpack_and_have_torchs_names(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        logits = lm.lm_head.output[0]
        values, indices = logits.topk(3)
        values.save("values")
        indices.save("indices")
        logits.max(dim=-1).indices.save("best")
        logits.max().save("greatest")
    found = {name: (value.shape, value.dtype) for name, value in t.scan().items()}
    assert found == {
        "values": ((2, 3), "float32"),
        "indices": ((2, 3), "int64"),
        "best": ((2,), "int64"),
        "greatest": ((), "float32"),
    }


def test_runs_are_called_as_their_parameter_or_numbered(lm: LanguageModel) -> None:
    with lm.trace() as t:
        with t.invoke(param("clean")):
            lm.model.norm.output.save("a")
        with t.invoke([1, 2]):
            lm.model.norm.output.save("b")
        with t.invoke(param("clean")):
            lm.model.norm.output.save("c")
        with t.invoke("some text", name="mine"):
            lm.model.norm.output.save("d")
    assert [(run.name, run.prompt) for run in t.graph.runs] == [
        ("clean", ParamRef("clean")),
        ("run1", (1, 2)),
        ("clean.2", ParamRef("clean")),
        ("mine", "some text"),
    ]
