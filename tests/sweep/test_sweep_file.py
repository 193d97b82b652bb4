"""What a sweep file means, and what is said when it is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from safetensors.torch import save_file

from ndif_batch import blobs
from ndif_batch.errors import NdifBatchError, NotFoundError, SweepError
from ndif_batch.graph.nodes import ParamType, TensorRef
from ndif_batch.sweep.config import sweep_schema
from ndif_batch.sweep.load import Sweep, load_sweep
from ndif_batch.sweep.marked import load_yaml, parse_yaml, typed

ROOT = Path(__file__).parents[2]
HEAD = "version: 1\nname: s\nmodel: m\njob: x.py\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x.py").write_text("")
    return tmp_path


def read(folder: Path, text: str, **variables: object) -> Sweep:
    (folder / "s.yaml").write_text(text)
    return load_sweep(folder / "s.yaml", variables)


def parameters(folder: Path, text: str, head: str = HEAD) -> Sweep:
    return read(folder, head + "parameters:\n" + text)


def wrong(folder: Path, text: str) -> SweepError:
    with pytest.raises(SweepError) as caught:
        read(folder, text)
    return caught.value


def test_a_grid_keeps_the_order_of_the_file_and_ranges_leave_the_stop_out(folder: Path) -> None:
    space = parameters(
        folder, "  layer: {range: [0, 3]}\n  scale: {values: [0.5, 1]}\n  pos: [4, 5]\n  word: ' Paris'\n"
    ).space
    assert [axis.name for axis in space.axes] == ["layer", "scale", "pos"]
    assert space.shape == (3, 2, 2)
    assert space.bindings(11) == {"layer": 2, "scale": 1, "pos": 5, "word": " Paris"}
    assert space.to_json()["axes"][0]["columns"]["layer"] == {"range": [0, 3, 1]}


def test_tied_parameters_share_one_axis_called_after_the_first_unless_it_is_named(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"clean": "A", "answer": " x", "more": 1}\n\n{"clean": "B", "answer": " y"}\n')
    space = parameters(folder, '  "clean, answer": {file: p.jsonl}\n  layer: [0, 1]\n').space
    assert space.shape == (2, 2)
    assert space.axes[0].name == "clean"
    assert space.bindings(3) == {"clean": "B", "answer": " y", "layer": 1}
    named = parameters(folder, '  "clean,answer": {file: p.jsonl, axis: prompt}\n').space
    assert named.axes[0].name == "prompt"
    rows = parameters(folder, '  "clean,answer": [[A, " x"], [[1, 2], " y"]]\n').space
    assert rows.bindings(1) == {"clean": (1, 2), "answer": " y"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"a": 1, "b": "x, y"}\n{"a": 2, "b": " z"}\n'),
        ("p.json", '[{"a": 1, "b": "x, y"}, {"a": 2, "b": " z"}]'),
        ("p.csv", 'a,b\n1,"x, y"\n2, z\n'),
        ("p.yaml", '- {a: 1, b: "x, y"}\n- {a: 2, b: " z"}\n'),
    ],
)
def test_every_table_format_gives_the_same_columns(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    space = parameters(folder, f'  "a,b": {{file: {name}}}\n').space
    assert [space.bindings(i) for i in range(2)] == [{"a": 1, "b": "x, y"}, {"a": 2, "b": " z"}]


def test_a_file_may_hold_bare_values_of_one_parameter(folder: Path) -> None:
    (folder / "words.jsonl").write_text('" Paris"\n" Rome"\n')
    assert parameters(folder, "  word: {file: words.jsonl}\n").space.bindings(1) == {"word": " Rome"}


def test_zip_ties_everything_that_varies(folder: Path) -> None:
    space = parameters(folder, "  a: [1, 2]\n  b: {range: [5, 7]}\n  c: 9\n", HEAD + "method: zip\n").space
    assert (space.axes[0].name, space.shape) == ("point", (2,))
    assert space.bindings(1) == {"a": 2, "b": 6, "c": 9}


def test_list_takes_the_points_as_they_are(folder: Path) -> None:
    space = parameters(folder, "  - {a: 1, b: x}\n  - {b: y, a: 1}\n", HEAD + "method: list\n").space
    assert [space.bindings(i) for i in range(2)] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]


def test_seeds_are_the_last_axis_and_no_parameter_of_the_graph(folder: Path) -> None:
    sweep = parameters(folder, "  layer: [3, 4]\n", HEAD + "seeds: 3\n")
    assert [axis.name for axis in sweep.space.axes] == ["layer", "seed"]
    assert sweep.space.bindings(2) == {"layer": 3, "seed": 2}
    sweep.check({"layer": ParamType.INT}, [])


def test_a_tensor_of_a_file_is_bound_by_its_content(folder: Path) -> None:
    weights = {"encoder": torch.arange(6.0).reshape(2, 3), "other": torch.ones(2, dtype=torch.bfloat16)}
    save_file(weights, folder / "w.safetensors")
    save_file({"mean": torch.zeros(3)}, folder / "one.safetensors")
    sweep = parameters(
        folder,
        "  layer: [3, 4]\n  encoder: {tensor: w.safetensors}\n  bias: {tensor: w.safetensors, name: other}\n"
        "  middle: {tensor: one.safetensors}\n",
    )
    assert sweep.space.shape == (2,)
    bound = sweep.space.bindings(1)
    assert bound.pop("layer") == 4
    for name, tensor in (("encoder", weights["encoder"]), ("bias", weights["other"]), ("middle", torch.zeros(3))):
        digest = blobs.digest(blobs.encode(tensor))
        assert bound[name] == TensorRef(digest)
        assert torch.equal(sweep.tensors[digest], tensor)
    assert sweep.space.tensors() == set(sweep.tensors)


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("a: {tensor: none.safetensors}", "there is no file 'none.safetensors'", "looked in"),
        ("a: {tensor: x.py}", "cannot be read as safetensors", ""),
        ("a: {tensor: w.safetensors, name: encodr}", "w.safetensors has no tensor 'encodr'", "'encoder'"),
        ("a: {tensor: w.safetensors}", "w.safetensors has no tensor 'a'", "encoder"),
        ('"a,b": {tensor: w.safetensors}', "a tensor is the value of one parameter", ""),
        ("a: {tensor: w.safetensors, nme: x}", "unknown key 'nme'", "'name'"),
    ],
)
def test_errors_of_tensors_name_line_and_what_there_is(folder: Path, entry: str, message: str, hint: str) -> None:
    save_file({"encoder": torch.zeros(1), "decoder": torch.zeros(1)}, folder / "w.safetensors")
    with pytest.raises(NdifBatchError) as caught:
        parameters(folder, f"  {entry}\n")
    assert "s.yaml:6: " in caught.value.message
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_variables_keep_their_type_when_they_are_the_whole_scalar(folder: Path) -> None:
    text = (
        HEAD
        + 'variables: {n: 3, who: John}\nparameters:\n  layer: {range: [0, "${n}"]}\n  p: "${who} on ${model} $${n}"\n'
    )
    assert read(folder, text).space.bindings(2) == {"layer": 2, "p": "John on m ${n}"}
    assert read(folder, text, n=7, who="Mary").space.bindings(6)["p"] == "Mary on m ${n}"
    with pytest.raises(SweepError, match="no variable 'm'"):
        read(folder, text, m=3)


def test_the_experiment_is_found_beside_the_file_or_above_it(folder: Path) -> None:
    deep = folder / "configs" / "sweeps"
    deep.mkdir(parents=True)
    assert read(deep, HEAD).experiment.read_text() == ""
    with pytest.raises(NotFoundError, match=r"s\.yaml:4: job: there is no file 'y\.py'") as caught:
        read(deep, HEAD.replace("x.py", "y.py"))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        (HEAD + "methd: grid\n", 5, "unknown key 'methd'", "did you mean 'method'?"),
        (HEAD + "parameters:\n  layer: {rnge: [0, 3]}\n", 6, "a parameter is a constant, a list, or one of", "'range'"),
        (HEAD + "parameters:\n  layer:\n    range: [0, 3]\n    axs: x\n", 8, "unknown key 'axs'", "'axis'"),
        (HEAD + "exclude: []\n", 5, "exclude: List should have at least 1 item", ""),
        (HEAD + "method: random\n", 5, "method: random and samples: N go together", ""),
        (HEAD + "samples: 3\n", 5, "method: random and samples: N go together", ""),
        (HEAD + "method: gird\n", 5, "must be 'grid', 'zip', 'list' or 'random'", "'grid'"),
        (HEAD.replace("version: 1", "version: 2"), 1, "version: must be 1", ""),
        (HEAD.replace("model: m\n", ""), 1, "the key 'model' is missing", ""),
        (HEAD + "graph: g.json\n", 5, "give either job", ""),
        (
            HEAD + "method: random\nsamples: 2\nparameters:\n  a:\n    distribution: uniform\n    min: 2\n    max: 1\n",
            11,
            "a.max: min is 2.0 and max is 1.0",
            "",
        ),
        (HEAD + "model: n\n", 5, "key 'model' is given twice (first on line 3)", ""),
        (HEAD + "parameters:\n  a: {range: [3, 3]}\n", 6, "the range [3, 3] is empty", "not included"),
        (HEAD + "parameters:\n  a: {range: [0, 3, 0]}\n", 6, "step must not be 0", ""),
        (HEAD + "parameters:\n  a: {range: [0, 1.5]}\n", 6, "a.range[1]: must be a whole number", ""),
        (HEAD + "parameters:\n  a:\n  - 1\n  - null\n", 8, "a value is a number", ""),
        (HEAD + "parameters:\n  a: []\n", 6, "at least 1 item", ""),
        (HEAD + "parameters:\n  a b: 1\n", 6, "'a b' is not a name", ""),
        (HEAD + 'parameters:\n  "a,b": 1\n', 6, "tied parameters need rows", "file"),
        (HEAD + 'parameters:\n  "a,b":\n  - [1, 2]\n  - [1]\n', 8, "a row must have 2 values: a, b", ""),
        (HEAD + 'parameters:\n  "a,b": [[1, 2]]\n  a: [1]\n', 5, "parameter 'a' is given twice", ""),
        (HEAD + "method: zip\nparameters:\n  a: [1, 2]\n  b: [1]\n", 6, "a has 2, b has 1", ""),
        (HEAD + "method: list\nparameters:\n  - {a: 1}\n  - {b: 1}\n", 8, "every point binds the same parameters", ""),
        (HEAD + "method: list\nparameters: {a: 1}\n", 6, "with method list, parameters is a list of points", ""),
        (HEAD + "parameters:\n  a: ${nam}\n", 6, "there is no variable 'nam'", "'name'"),
        (HEAD + "parameters: [\n", 6, "while parsing a flow", ""),
        (HEAD + "name: 'x\n", 6, "while scanning a quoted scalar", ""),
        (HEAD + "parameters:\n\ta: 1\n", 6, "cannot start any token", ""),
        (HEAD + "parameters: &p {a: 1}\nvariables: *p\n", 6, "alias '*p' is not supported", "${name}"),
        (HEAD + "name2: !!python/name:os.system x\n", 5, "is not supported here", ""),
        (HEAD + "seeds: 0\n", 5, "seeds: must be greater than or equal to 1", ""),
        ("- 1\n", 1, "a sweep file is a mapping of keys", "version: 1"),
        ("", 1, "a sweep file is a mapping of keys", ""),
    ],
)
def test_errors_name_file_line_key_and_what_to_do(folder: Path, text: str, line: int, message: str, hint: str) -> None:
    error = wrong(folder, text)
    assert (error.file, error.line) == (str(folder / "s.yaml"), line)
    assert message in error.message.replace("parameters.", "")
    assert hint in (error.hint or "")
    assert error.message.startswith(f"{folder}/s.yaml:{line}: ")


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("p.jsonl", '{"a": 1}\n{"a": \n', 2, "column"),
        ("p.jsonl", '{"a": 1}\n{"b": 1}\n', 2, "no column 'a'"),
        ("p.jsonl", "\n", None, "no rows"),
        ("p.jsonl", '{"a": null}\n', 1, "a value is a number"),
        ("p.csv", "a,b\n1,2,3\n", 2, "more or fewer fields"),
        ("p.json", "{}", 1, "a list of rows"),
        ("p.yaml", "- a: 1\n- c: 1\n", 2, "no column 'a'"),
        ("p.txt", "a", None, "files .txt are not read"),
    ],
)
def test_errors_in_a_table_name_its_own_line(
    folder: Path, name: str, text: str, line: int | None, message: str
) -> None:
    (folder / name).write_text(text)
    error = wrong(folder, HEAD + f"parameters:\n  a: {{file: {name}}}\n")
    assert (error.file, error.line) == (str(folder / name), line)
    assert message in error.message


def test_a_parameter_that_the_experiment_lacks_is_named_with_its_line(folder: Path) -> None:
    sweep = parameters(folder, "  a: 1\n  layr: [1, 2]\n")
    with pytest.raises(
        SweepError, match=r"s\.yaml:7: parameters\.layr: the experiment has no parameter 'layr'"
    ) as caught:
        sweep.check({"a": ParamType.INT, "layer": ParamType.INT}, [])
    assert caught.value.hint == "did you mean 'layer'?"
    with pytest.raises(SweepError, match="parameter 'b' has no value"):
        sweep.check({"a": ParamType.INT, "layr": ParamType.INT, "b": ParamType.INT}, [])


def test_files_that_cannot_be_read_are_named(folder: Path) -> None:
    (folder / "near.yaml").write_text("")
    with pytest.raises(NotFoundError, match="there is no file") as caught:
        load_sweep(folder / "nearr.yaml")
    assert "near.yaml" in (caught.value.hint or "")
    with pytest.raises(NotFoundError, match="is a directory"):
        load_sweep(folder)
    (folder / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(SweepError, match="byte 6 is not UTF-8"):
        load_sweep(folder / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("NO", "NO"),
        ("1:30", "1:30"),
        ("010", 10),
        ("1e-3", 1e-3),
        ("2026-01-01", "2026-01-01"),
        ("true", True),
        ("~", None),
        ("-.inf", float("-inf")),
        (".5", 0.5),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert typed(text) == value
    assert parse_yaml(text, "t").data == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=50), inner),
        max_leaves=20,
    )
)
def test_yaml_reads_json_as_it_is(data: object) -> None:
    text = json.dumps(data)
    assert parse_yaml(text, "t").data == json.loads(text)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fall_over(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("y") / "s.yaml"
    path.write_bytes(HEAD.encode() + body)
    (path.parent / "x.py").write_text("")
    with suppress(NdifBatchError):
        load_sweep(path)


def test_deep_nesting_is_refused_in_words() -> None:
    with pytest.raises(SweepError, match="nested too deeply"):
        parse_yaml("[" * 5000, "t")


def test_the_published_schema_is_current_and_knows_the_shipped_sweeps(folder: Path) -> None:
    published = json.loads((ROOT / "configs/schema/sweep.v1.json").read_text())
    assert published == sweep_schema(), "run: python -m ndif_batch.sweep.schema"
    Draft202012Validator.check_schema(published)
    validator = Draft202012Validator(published)
    for path in sorted((ROOT / "configs/sweeps").glob("*.yaml")):
        validator.validate(load_yaml(path).data)
    validator.validate(
        parse_yaml(HEAD + 'parameters: {a: [[1, 2], [3]], b: [1, 2], "c,d": {values: [[1, x]]}}', "t").data
    )
    assert not validator.is_valid(parse_yaml(HEAD + "parameters: {a: {rnge: [0, 1]}}", "t").data)
    validator.validate(
        parse_yaml(
            HEAD + "method: random\nsamples: 3\nparameters: {a: {distribution: normal}, b: [1, 2]}\n"
            "exclude: [{b: 1}]\ninclude: [{a: 0.5, b: {range: [3, 5]}}]\nsave: [x]\nretention_days: 3\n"
            "resources: {partition: gpu, gpus_per_node: 1}\nschedule: {priority: low, max_retries: 0}\n",
            "t",
        ).data
    )
    assert not validator.is_valid(parse_yaml(HEAD + "methd: grid", "t").data)
    for wrong in ("parameters: {a: {distribution: nrmal}}", "schedule: {priority: hgh}", "exclude: [{a: {rnge: [1]}}]"):
        assert not validator.is_valid(parse_yaml(HEAD + wrong, "t").data), wrong


def test_the_sweep_file_of_the_page_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs/sweeps.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/activation_patching.py").write_text("")
    (tmp_path / "prompts").mkdir()
    pairs = [f'{{"clean": "A {i}", "corrupted": "B {i}"}}\n' for i in range(4)]
    (tmp_path / "prompts/ioi.jsonl").write_text("".join(pairs))
    sweep = read(tmp_path, text)
    validator = Draft202012Validator(json.loads((ROOT / "configs/schema/sweep.v1.json").read_text()))
    validator.validate(load_yaml(tmp_path / "s.yaml").data)
    skipped = sweep.space.excluded()
    assert skipped is not None
    assert sweep.space.shape == (30, 17, 3, len(pairs), 3)
    left = 17 * (30 * 3 - 3 - 10 * 2 + 1) + 3
    assert int((~skipped).sum()) == left * len(pairs) * 3
    assert (sweep.schedule.number, sweep.retention_days, sweep.save) == (10, 30, ("logit_diff",))
    assert (sweep.reduce["logit_diff"].axes, sweep.reduce["logit_diff"].op) == (["seed"], "mean")
