"""Brings a model into the model cache: from a directory, a hub id or a GGUF file; safetensors only, no remote code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from secrets import token_hex
from typing import Any

from ndif_batch.errors import ModelError, NotFoundError, UsageError
from ndif_batch.models.info import FILE, VERSION, ModelInfo
from ndif_batch.models.tokenizer import FILE as TOKENIZER_FILE

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What can be a model's name: it is also that of a directory."""

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt"]


def add(source: str, name: str, cache: Path, dtype: str = "float32", revision: str | None = None) -> ModelInfo:
    """Makes the entry ``name`` of ``source`` in the model cache and returns it.

    ``source`` is a directory with safetensors, a ``.gguf`` file (converted once) or a hub id. An entry that exists
    for the same source, dtype and revision is returned as it is, unless an earlier version has measured its sites.
    """
    check_name(name)
    target = cache / name
    known = _existing(target, source, dtype, revision)
    if known is not None:
        return known
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / f".{name}-{token_hex(4)}"
    work.mkdir()
    try:
        weights, commit = _weights(source, work / "weights", revision)
        info = _describe(source, name, target, work, weights, commit, dtype)
        (work / FILE).write_text(json.dumps(info.to_json()))
        _replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return info


def check_name(name: str) -> None:
    """``UsageError`` for what cannot be a model's name."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a model", hint="letters, digits, and _ . - inside; at most 100")


def _existing(target: Path, source: str, dtype: str, revision: str | None) -> ModelInfo | None:
    try:
        info = ModelInfo.read(target)
    except NotFoundError:
        return None
    same = info.source == source and info.dtype == dtype and revision in (None, info.revision)
    return info if same and info.version == VERSION and info.weights.is_dir() else None


def _replace(work: Path, target: Path) -> None:
    if target.exists():
        old = target.with_name(f".{target.name}-old-{token_hex(4)}")
        os.replace(target, old)
        shutil.rmtree(old)
    os.replace(work, target)


def _weights(source: str, work: Path, revision: str | None) -> tuple[Path, str | None]:
    path = Path(source).expanduser()
    if path.is_dir():
        _require_safetensors(path)
        return path.resolve(), None
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFoundError(f"there is no file {source}")
        _convert_gguf(path, work)
        return work, None
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") != 1:
        raise NotFoundError(
            f"there is no model at {source!r}", hint="give a directory, a .gguf file, or a hub id such as org/model"
        )
    return _download(source, revision)


def _download(source: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(source, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotFoundError(f"the hub has not given {source!r}: {reason}") from error
    _require_safetensors(path)
    return path, path.name


def _require_safetensors(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json, so it holds no model")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{path} has no safetensors", hint="other weight formats can run code and are never loaded")


def _convert_gguf(path: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]

    folder, file = str(path.parent), path.name
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype="float32", quantization_config=GgufConfig(dequantize=True)
    )
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
        del model.hf_quantizer
    model.save_pretrained(target)
    for weights in target.glob("*.safetensors"):  # which are written for their owner alone
        weights.chmod((target / "config.json").stat().st_mode)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)


def _describe(
    source: str, name: str, target: Path, work: Path, weights: Path, commit: str | None, dtype: str
) -> ModelInfo:
    from ndif_batch.models.architecture import empty_model, read_config
    from ndif_batch.models.probe import measure_empty

    digest = _digest(weights)
    _save_tokenizer(weights, work)
    return ModelInfo(
        name=name,
        source=source,
        directory=target,
        weights=target / "weights" if weights.is_relative_to(work) else weights,
        revision=commit or digest[:12],
        digest=digest,
        dtype=dtype,
        sites=measure_empty(empty_model(read_config(weights), dtype)),
    )


def _save_tokenizer(weights: Path, work: Path) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(weights), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    files = (*tokenizer.vocab_files_names.values(), TOKENIZER_FILE)  # without any of these it is made up and empty
    if backend is not None and any((weights / file).is_file() for file in files):
        backend.save(str(work / TOKENIZER_FILE))


def _digest(weights: Path) -> str:
    total = hashlib.blake2b(digest_size=32)
    for path in sorted(weights.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()
