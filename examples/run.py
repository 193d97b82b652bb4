"""Runs notebooks anew, each with a new kernel and an empty queue, and stores what they show: run.py NOTEBOOK…."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

MINUTES = 10
"""That a cell may take."""


def run(path: Path) -> None:
    """Execute one notebook and write it with its outputs; ``CellExecutionError`` for the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=60 * MINUTES, kernel_name="python3", record_timing=False)
        client.execute(env=os.environ | {"NDIF_BATCH_DATA_DIR": folder})
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def main(paths: list[str]) -> int:
    """Run each; 1 if one of them fails."""
    for path in map(Path, paths):
        try:
            run(path)
        except CellExecutionError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
