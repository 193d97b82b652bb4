"""nnsight's own ``model.trace(…, backend=…)``: what its blocks do is recorded as a graph and run or submitted.

Of nnsight 0.8 this uses that a tracer hands its captured block to a backend, that a block asks for values by naming
locations (``model.transformer.h.0.output``), and that saved values are pushed into the frame of the block.
"""

from __future__ import annotations

import warnings

from ndif_batch.errors import UsageError

try:
    import nnsight  # noqa: F401
except ImportError:
    raise UsageError("nnsight is not installed", hint='pip install "ndif-batch[nnsight]"') from None

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "save"')  # nnsight gives every object a method of that name
    from ndif_batch.compat.nnsight.backend import NDIFBatchBackend

__all__ = ["NDIFBatchBackend"]
