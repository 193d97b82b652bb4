"""What is known of the models of a server, kept in the model cache of this host."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

from ndif_batch.archive.files import write_file
from ndif_batch.models.info import FILE, PREPROCESSOR, ModelInfo
from ndif_batch.models.tokenizer import FILE as TOKENIZER
from ndif_batch.queue.api import Api

FOLDER = "of-servers"
CONFIG = "config.json"


def fetched(server: Api, name: str, cache: Path) -> ModelInfo:
    """The entry of a model, without its weights; fetched again only if the server has another one by now.

    ``NotFoundError`` if the server has no model of that name.
    """
    record = server.model(name)
    known = json.dumps([record.name, record.source, record.revision, record.dtype, record.digest, record.info])
    folder = cache / FOLDER / blake2b(known.encode(), digest_size=16).hexdigest()
    if not (folder / FILE).is_file():
        entry = server.model_entry(name)
        folder.mkdir(parents=True, exist_ok=True)
        files = ((TOKENIZER, entry.tokenizer), (CONFIG, entry.config), (PREPROCESSOR, entry.processor))
        for file, text in files:
            if text is not None:
                write_file(folder / file, text.encode())
        here = entry.info | {"directory": str(folder), "weights": str(folder)}
        write_file(folder / FILE, json.dumps(here).encode())
    return ModelInfo.read(folder)
