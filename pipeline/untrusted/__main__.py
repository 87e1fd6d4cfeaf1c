"""The child process: parses one file within limits of memory and time, and writes plain arrays beside it.

Usage: python -m pipeline.untrusted FORMAT FOLDER MEMORY_BYTES CPU_SECONDS
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np

from pipeline.errors import UnreadableDataset
from pipeline.untrusted.child_process import ANSWER, BOXES, COUNTS, REJECTED, SCORES, SOURCE
from pipeline.untrusted.proposal_files import PARSERS, ImageProposals


def parse_file(file_format: str, folder: Path) -> None:
    """Parse the file in the folder and write its content there as arrays.

    Raises:
        UnreadableDataset: it is damaged, or not proposals.
        MemoryError: the process may not take more.
    """
    images = list(PARSERS[file_format]((folder / SOURCE).read_bytes()))
    np.save(folder / COUNTS, np.array([len(image.boxes) for image in images], np.int64))
    np.save(folder / BOXES, np.concatenate([np.empty((0, 4), np.float32), *_get_boxes(images)]))
    scores = [image.scores for image in images if image.scores is not None]
    if scores:
        np.save(folder / SCORES, np.concatenate(scores))
    ids = [image.image_id for image in images]
    (folder / ANSWER).write_text(json.dumps({"ids": ids, "has_scores": bool(scores)}))


def _get_boxes(images: list[ImageProposals]) -> list[np.ndarray]:
    return [image.boxes for image in images]


def main() -> int:
    """Set the limits, parse, and return the exit code."""
    file_format, folder, memory, seconds = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    try:
        parse_file(file_format, folder)
    except UnreadableDataset as error:
        (folder / ANSWER).write_text(json.dumps({"error": str(error)[:2000]}))
        return REJECTED
    except (MemoryError, RecursionError):
        (folder / ANSWER).write_text(
            json.dumps({"error": f"it needs more than {memory / 1e9:.1f} GB of memory to be read"})
        )
        return REJECTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
