"""What may become a model entry, what is kept of it, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ndif_batch.errors import ModelError, NotFoundError
from ndif_batch.models import source
from ndif_batch.models.info import FILE, ModelInfo
from tests.families import FAMILIES, TOKENS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(AutoConfig.for_model("gpt2", **FAMILIES["gpt2"], **TOKENS))
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_directory_is_used_where_it_lies_and_described_without_its_weights(checkpoint: Path, cache: Path) -> None:
    info = source.add(str(checkpoint), "tiny", cache)
    assert info.weights == checkpoint
    assert info.revision == info.digest[:12]
    assert info.sites.head == "lm_head"
    assert info.sites.vocabulary == 97
    assert info.sites.max_tokens == 64
    assert info.sites.site("transformer.h.0.output").value.at(5) == (1, 5, 48)  # type: ignore[union-attr]
    assert ModelInfo.read(cache / "tiny") == info


def test_a_model_without_a_tokenizer_has_none(checkpoint: Path, cache: Path) -> None:
    assert source.add(str(checkpoint), "tiny", cache).tokenizer is None


def test_the_tokenizer_of_a_checkpoint_is_kept_with_the_entry(checkpoint: Path, cache: Path) -> None:
    words = tokenizers.Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(checkpoint)
    tokenizer = source.add(str(checkpoint), "tiny", cache).tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("b a") == (2, 1)
    assert tokenizer.token("b") == 2
    with pytest.raises(ModelError, match="2 tokens"):
        tokenizer.token("a b")


def test_the_same_entry_is_not_made_twice_and_another_dtype_replaces_it(checkpoint: Path, cache: Path) -> None:
    source.add(str(checkpoint), "tiny", cache)
    made = (cache / "tiny").stat().st_ino
    source.add(str(checkpoint), "tiny", cache)
    assert (cache / "tiny").stat().st_ino == made
    half = source.add(str(checkpoint), "tiny", cache, dtype="bfloat16")
    assert half.sites.site("transformer.h.0.output").value.dtype == "bfloat16"  # type: ignore[union-attr]
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_an_entry_of_an_earlier_version_is_measured_anew(checkpoint: Path, cache: Path) -> None:
    info = source.add(str(checkpoint), "tiny", cache)
    record = info.to_json()
    del record["version"]
    record["sites"]["sites"] = [site for site in record["sites"]["sites"] if not site[0].endswith(".pattern")]
    (cache / "tiny" / FILE).write_text(json.dumps(record))
    assert "transformer.h.0.attn.pattern" not in ModelInfo.read(cache / "tiny").sites.sites
    assert source.add(str(checkpoint), "tiny", cache) == info
    assert "transformer.h.0.attn.pattern" in ModelInfo.read(cache / "tiny").sites.sites


def test_other_weights_have_another_digest(checkpoint: Path, cache: Path) -> None:
    first = source.add(str(checkpoint), "one", cache)
    factory: Any = AutoModelForCausalLM
    factory.from_config(AutoConfig.for_model("gpt2", **FAMILIES["gpt2"], **TOKENS)).save_pretrained(checkpoint)
    assert source.add(str(checkpoint), "two", cache).digest != first.digest


def test_weights_that_could_run_code_are_refused(checkpoint: Path, cache: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors"):
        source.add(str(checkpoint), "tiny", cache)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("wanted", ["./nothing", "/nowhere/model", "missing.gguf", "nothing"])
def test_a_source_that_is_not_there_is_named(wanted: str, cache: Path) -> None:
    with pytest.raises(NotFoundError, match=wanted):
        source.add(wanted, "tiny", cache)


def test_an_unknown_dtype_lists_the_valid_ones(checkpoint: Path, cache: Path) -> None:
    with pytest.raises(ModelError, match="int3") as caught:
        source.add(str(checkpoint), "tiny", cache, dtype="int3")
    assert "float32, bfloat16" in str(caught.value.hint)


def test_who_may_read_an_entry_is_decided_by_the_umask_so_that_accounts_can_share_a_cache(
    checkpoint: Path, cache: Path
) -> None:
    before = os.umask(0o022)
    try:
        source.add(str(checkpoint), "tiny", cache)
    finally:
        os.umask(before)
    assert (cache / "tiny").stat().st_mode & 0o777 == 0o755
