"""Images as prompts, from files to results: traced in Python, in a sweep file, on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from pydantic import SecretStr
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoImageProcessor, PreTrainedTokenizerFast

from ndif_batch import Client, GraphError, ModelError, NotFoundError, Settings, TraceError, param, worker
from ndif_batch.cli.main import main
from ndif_batch.errors import NdifBatchError
from ndif_batch.graph.nodes import Inputs
from ndif_batch.queue import schema
from ndif_batch.queue.api import Submission
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from tests import tiny, toy
from tests.pictures import PLACES, SIZE, VOCABULARY, WORDS, random_model
from tests.server.serving import serving

VIT, CLIP = "tiny-vit", "tiny-clip"
PROCESSOR = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": SIZE, "width": SIZE}},
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE + 4},
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
    },
}
JOB = """
from ndif_batch import param


def build(lm):
    with lm.trace() as t:
        with t.invoke(param("image")):
            found = lm.vit.layers[param("layer")].output[:, 0]
        with t.invoke(param("other")):
            lm.vit.layers[param("layer")].output[:, 0] = found
            lm.classifier.output[0].save("scores")
    return t
"""
SWEEP = """version: 1
name: images
model: tiny-vit
job: job.py
parameters:
  image: [pictures/0.png, pictures/1.png]
  layer: {range: [0, 3]}
  other: pictures/2.png
"""


def write(folder: Path, name: str) -> Path:
    """A checkpoint with its processor."""
    model, _ = random_model(name)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR[name]))
    if name == "clip":
        words = tokenizers.Tokenizer(WordLevel({"[pad]": 0, "the": 1, "cat": 3, "sat": 4, "end": 2}, unk_token="end"))
        words.pre_tokenizer = WhitespaceSplit()
        fast: Any = PreTrainedTokenizerFast
        fast(tokenizer_object=words, pad_token="[pad]", eos_token="end").save_pretrained(folder)
    return folder


def pictures(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    settings = toy.settings(root)
    schema.upgrade(settings.database)
    with Client(settings) as made:
        for name, model in (("vit", VIT), ("clip", CLIP)):
            (root / f"source-{name}").mkdir()
            made.add_model(str(write(root / f"source-{name}", name)), model)
        (root / "source-tiny").mkdir()
        made.add_model(str(tiny.write(root / "source-tiny")), tiny.NAME)
        yield made


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    return pictures(root / "pictures")


def pixels(root: Path, file: Path, name: str = "vit") -> torch.Tensor:
    factory: Any = AutoImageProcessor
    processor = factory.from_pretrained(root / f"source-{name}", backend="pil")
    with Image.open(file) as image:
        found: torch.Tensor = processor(images=image.copy(), return_tensors="pt")["pixel_values"]
    return found


def loaded(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.copy()


def patched(root: Path, image: Path, other: Path, layer: int) -> torch.Tensor:
    """By plain hooks: the class token of one image at a layer, put into another."""
    model, _ = random_model("vit")
    held: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not held:
            held.append(output[:, 0].clone())
            return output
        output = output.clone()
        output[:, 0] = held[0]
        return output

    handle = model.vit.layers[layer].register_forward_hook(hook)
    with torch.no_grad():
        model(pixels(root, image))
        scores: torch.Tensor = model(pixels(root, other)).logits[0]
    handle.remove()
    return scores


def test_a_sweep_over_image_files_gives_what_plain_hooks_give(
    root: Path, client: Client, files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "job.py").write_text(JOB)
    (root / "sweep.yaml").write_text(SWEEP)
    monkeypatch.setenv("NDIF_BATCH_DATA_DIR", str(client.settings.data_dir))
    monkeypatch.setenv("NDIF_BATCH_MODEL_CACHE", str(client.settings.model_cache))
    monkeypatch.setenv("NDIF_BATCH_USER", "ada")
    assert main(["sweep", "plan", str(root / "sweep.yaml"), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["tasks"], plan["unique_prompts"], plan["assumed_layout"]) == (6, 3, "stacked")
    assert main(["sweep", "run", str(root / "sweep.yaml"), "--parsable"]) == 0
    job = client.job(int(capsys.readouterr().out))
    worker.run(client.settings, VIT, device="cpu", until_idle=True)
    results = job.wait(timeout=60).results()
    assert job.state is JobState.COMPLETED
    for i, image in enumerate(files[:2]):
        for layer in range(3):
            ours = np.asarray(results["scores"][i, layer])
            np.testing.assert_allclose(ours, patched(root, image, files[2], layer).numpy(), rtol=1e-4, atol=1e-5)
    options = ["--grid", f"image=@{root / 'rows.json'}", "--grid", "layer=0:3", "-S", f"other={files[2]}"]
    (root / "rows.json").write_text(json.dumps([str(file) for file in files[:2]]))
    again = ["submit", str(root / "job.py"), "-m", VIT, *options]
    assert main(again) == 0
    assert "6 of them re-used" in capsys.readouterr().out, "equal images are equal prompts, wherever they came from"


def submission(graph: Any, prompt: Any) -> Submission:
    """A graph with another prompt, for a server."""
    changed = {**graph, "params": {}, "runs": [{"name": "r", "prompt": prompt}]}
    return Submission(model=VIT, graph=changed, space=Space().to_json())


def test_through_a_server_images_are_read_here_and_run_there(
    root: Path, client: Client, files: list[Path], tmp_path: Path
) -> None:
    with serving(client.queue, client.settings) as served:
        token = SecretStr(served.tokens["ada"])
        here = Settings(data_dir=tmp_path, model_cache=tmp_path / "models", url=served.url, token=token)
        with Client(here) as away:
            lm = away.language_model(VIT)
            with lm.trace(param("image")) as t:
                lm.classifier.output[0].save("scores")
            job = t.submit(grid={"image": files[1:]}, reuse=False)
            named = {"inputs": {"pixel_values": {"tensor": "../../etc/hostname"}}}
            path, tensor = (submission(job.record.graph, prompt) for prompt in ("/etc/hostname", named))
            with pytest.raises(ModelError, match="is the text '/etc/hostname', and the model takes pixel_values"):
                away.server.submit(path)
            with pytest.raises(GraphError, match="is no digest of a tensor"):
                away.server.submit(tensor)
            worker.run(client.settings, VIT, device="cpu", until_idle=True)
            scores = np.asarray(job.wait(timeout=60).results()["scores"])
    model, _ = random_model("vit")
    for image, ours in zip(files[1:], scores, strict=True):
        with torch.no_grad():
            truth = model(pixels(root, image)).logits[0].numpy()
        np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-5)


def test_an_image_can_be_a_file_a_picture_bytes_or_its_tensor(root: Path, client: Client, files: list[Path]) -> None:
    lm = client.language_model(VIT)
    opened = loaded(files[0])
    own = pixels(root, files[0])
    ways = [str(files[0]), files[0], opened, np.asarray(opened), own, own.numpy(), {"pixel_values": own}]
    ways.append({"images": files[0]})
    digests = set()
    for way in ways:
        with lm.trace(way) as t:
            lm.classifier.output[0].save("scores")
        [run] = t.graph.runs
        assert isinstance(run.prompt, Inputs)
        digests |= set(run.prompt.digests.values())
    assert len(digests) == 1
    model, _ = random_model("vit")
    torch.testing.assert_close(t.run()["scores"], model(own).logits[0].detach(), rtol=1e-4, atol=1e-5)
    with lm.trace(param("image")) as t:
        lm.classifier.output[0].save("scores")
    assert t.scan(image=opened)["scores"].shape == (5,)
    torch.testing.assert_close(t.run(image=files[1])["scores"], model(pixels(root, files[1])).logits[0].detach())


def test_clip_compares_an_image_with_a_text_that_is_padded_as_it_was_trained(
    root: Path, client: Client, files: list[Path]
) -> None:
    lm = client.language_model(CLIP)
    with lm.trace({"images": files[0], "text": "the cat end"}) as t:
        lm.visual_projection.output[0].save("image")
        lm.text_projection.output[0].save("text")
    assert isinstance(t.graph.runs[0].prompt, Inputs)
    named = t.graph.runs[0].prompt.digests
    ids, mask = (t.constants[named[name]] for name in ("input_ids", "attention_mask"))
    assert ids.shape == mask.shape == (1, WORDS)
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0]]
    saves = t.run()
    model, _ = random_model("clip")
    with torch.no_grad():
        truth = model(torch.tensor(ids), pixels(root, files[0], "clip"), torch.tensor(mask))
    for ours, theirs in (("image", truth.image_embeds), ("text", truth.text_embeds)):
        torch.testing.assert_close(saves[ours] / saves[ours].norm(), theirs[0], rtol=1e-4, atol=1e-5)


WRONG: list[tuple[str, Any, str]] = [
    (VIT, "no/such.png", "there is no image 'no/such.png'"),
    (VIT, "job.txt", "cannot be read as an image"),
    (VIT, [1, 2, 3], "a value of type list is no prompt"),
    (VIT, np.zeros((3, SIZE, SIZE), np.float32), r"has the shape \[3, 16, 16\], and the model takes \[1, 3, 16, 16\]"),
    (VIT, np.zeros((2, 3, SIZE, SIZE), np.float32), "the first axis is the batch's"),
    (VIT, np.zeros((1, 1, SIZE, SIZE), np.float32), r"takes \[1, 3, 16, 16\]"),
    (VIT, {"pixel_values": np.zeros((1, 3, SIZE, SIZE), np.int64)}, "is int64, and the model takes float32"),
    (VIT, {"pixels": np.zeros((1, 3, SIZE, SIZE), np.float32)}, "takes no input 'pixels'"),
    (VIT, {"pixel_values": 3}, "must be a tensor of torch or numpy, not a int"),
    (VIT, np.full((1, 3, SIZE, SIZE), np.nan, np.float32), "holds NaN or infinity"),
    (VIT, np.zeros((4, 4, 4, 4), np.uint8), "is no image"),
    (CLIP, "0.png", r'give its tensors by name, or \{"images": …, "text": …\}'),
    (CLIP, {"images": "0.png"}, "has no 'attention_mask'"),
    (CLIP, {"images": "0.png", "text": "the cat " * 9}, f"has 18 tokens; the model takes {WORDS}"),
    (CLIP, {"images": "0.png", "text": ["the cat", "the dog"]}, "must be one text a run"),
    (
        CLIP,
        {"images": "0.png", "input_ids": np.full((1, WORDS), VOCABULARY), "attention_mask": np.ones((1, WORDS), int)},
        "holds 97, which is no token id of the model",
    ),
]


@pytest.mark.parametrize(("model", "prompt", "message"), WRONG)
def test_what_is_no_prompt_of_the_model_is_told_before_anything_is_queued(
    client: Client, files: list[Path], model: str, prompt: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files[0].parent)
    Path("job.txt").write_text("not an image")
    lm = client.language_model(model)
    with pytest.raises(NdifBatchError) as error, lm.trace(prompt):
        pass
    assert_told(error.value, message)
    with lm.trace(param("prompt")) as t:
        (lm.classifier if model == VIT else lm.visual_projection).output.save("x")
    with pytest.raises(NdifBatchError) as error:
        t.submit(grid={"prompt": [prompt]})
    assert_told(error.value, message)
    assert "x" not in {job.record.name for job in client.jobs()}


def assert_told(error: NdifBatchError, message: str) -> None:
    assert re.search(message, f"{error.message} {error.hint}"), f"{error.message} {error.hint}"


def test_a_file_too_large_to_be_read_is_refused_by_its_size(
    client: Client, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndif_batch.models.processing.MOST_PIXELS", 24 * 20 - 1)
    with pytest.raises(ModelError, match="has 24 x 20 pixels"), client.language_model(VIT).trace(files[0]):
        pass


def test_a_graph_that_names_a_file_opens_nothing_where_it_is_prepared(client: Client, files: list[Path]) -> None:
    lm = client.language_model(VIT)
    with lm.trace(param("image")) as t:
        lm.classifier.output.save("x")
    space = Space((), {"image": str(files[0])})
    with pytest.raises(
        ModelError, match=r"is the text '.*', and the model takes pixel_values \(float32 \[1, 3, 16, 16"
    ):
        client.prepare(t.graph, space, VIT)


def test_an_image_is_no_prompt_of_a_language_model(client: Client, files: list[Path]) -> None:
    lm = client.language_model(tiny.NAME)
    with pytest.raises(TraceError, match="is no prompt"), lm.trace(loaded(files[0])):
        pass
    with lm.trace(param("prompt")) as t:
        lm.lm_head.output.save("x")
    image = Inputs.of({"pixel_values": "0" * 64})
    with pytest.raises(ModelError, match=r"is tensors \(pixel_values\), and the model takes text"):
        client.prepare(t.graph, Space((Axis("prompt", {"prompt": [image]}),)), tiny.NAME)


def test_tensors_that_were_never_stored_are_missing(client: Client) -> None:
    lm = client.language_model(VIT)
    with lm.trace(param("image")) as t:
        lm.classifier.output.save("x")
    with pytest.raises(NotFoundError, match="no constant tensor 000000000000"):
        client.prepare(t.graph, Space((), {"image": Inputs.of({"pixel_values": "0" * 64})}), VIT)


def test_an_image_costs_as_many_tokens_as_go_through_the_blocks(client: Client, files: list[Path]) -> None:
    lm = client.language_model(VIT)
    with lm.trace(param("image")) as t:
        lm.classifier.output.save("x")
    _, fixed = t.graph, [Inputs.of({"pixel_values": digest * 64}) for digest in "01"]
    constants = {digest * 64: np.zeros((1, 3, SIZE, SIZE), np.float32) for digest in "01"}
    plan = client.prepare(t.graph, Space((Axis("image", {"image": fixed}),)), VIT, constants=constants)
    assert plan.prompts.distinct == 2
    assert PLACES - 4 <= plan.prompts.tokens_per_task <= PLACES + 4
    with lm.generate(files[0], max_new_tokens=2) as t:
        t.tokens.save("tokens")
    with pytest.raises(ModelError, match="in this version models of tensors generate nothing"):
        client.prepare(t.graph, Space(), VIT, constants=t.constants)
