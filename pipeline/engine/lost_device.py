"""A worker whose GPU does not recover ends: every later image would fail in it."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)


def end_if_device_is_lost(error: Exception) -> None:
    """End this process after an error that its GPU does not recover from.

    Every later image would fail too. The driver notices the death, starts another worker, and finds the image
    that causes it. Full memory is not such an error.
    """
    import torch  # noqa: PLC0415  (the driver imports this module and must not load torch)

    from pipeline.detector.device_memory import is_out_of_memory  # noqa: PLC0415

    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        log.critical("the worker ends: it lost its device: %s", str(error).splitlines()[0])
        logging.shutdown()
        os._exit(1)
