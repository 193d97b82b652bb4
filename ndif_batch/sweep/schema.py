"""Prints the JSON Schema of a sweep file: ``python -m ndif_batch.sweep.schema > configs/schema/sweep.v1.json``."""

from __future__ import annotations

import json

from ndif_batch.sweep.config import sweep_schema

if __name__ == "__main__":
    print(json.dumps(sweep_schema(), indent=2))
