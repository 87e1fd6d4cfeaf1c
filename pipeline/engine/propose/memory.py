"""Which images a worker may search for proposals: those that fit into a core's share of its node's memory."""

from __future__ import annotations

import functools
import math

import ray

from pipeline.errors import ImageTooLarge

SEARCH_BYTES_PER_PIXEL = 130
"""Memory that selective search takes per pixel: 120 to 124 measured on noise, the worst case."""
DECODING_BYTES_PER_PIXEL = 10
"""Memory that decoding takes per pixel at its peak."""
WORKER_BYTES = 300_000_000
"""Memory of a worker that searches nothing, measured with its kernels loaded."""


@functools.cache
def find_memory_limit() -> float:
    """Bytes that an image may take in a worker of this node; infinite if the node's memory is unknown."""
    own_node = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    totals: dict[str, float] = next(
        (node["Resources"] for node in nodes if node["NodeID"] == own_node), {}
    )
    return compute_memory_limit(totals.get("memory", 0.0), totals.get("CPU", 0.0))


def compute_memory_limit(memory: float, cores: float) -> float:
    """Bytes for an image on a node with `memory` bytes and `cores`; infinite if one of them is unknown."""
    if not memory or not cores:
        return math.inf
    return max(0.0, memory / max(1.0, cores) - WORKER_BYTES)


def check_memory(width: int, height: int, max_side: int | None, limit: float) -> None:
    """Reject an image before it is decoded if it would take more memory than the worker may.

    Args:
        width: of the image in pixels.
        height: of the image in pixels.
        max_side: the longer side to which the image is shrunk before it is searched; None keeps its size.
        limit: bytes.

    Raises:
        ImageTooLarge: it would; the message is the same on every node.
    """
    factor = min(1.0, (max_side or math.inf) / max(width, height))
    decoding = width * height * DECODING_BYTES_PER_PIXEL
    searching = width * height * factor**2 * SEARCH_BYTES_PER_PIXEL
    if max(decoding, searching) <= limit:
        return
    needed = f"{width}x{height} pixels need {max(decoding, searching) / 1e9:.1f} GB of memory, more than a"
    if decoding > limit:
        remedy = "shrink the image, or use nodes with more memory per core"
    else:
        remedy = (
            "pass --max-side, such as 2000" if max_side is None else "pass a smaller --max-side"
        )
    raise ImageTooLarge(f"{needed} core's share of its node: {remedy}")
