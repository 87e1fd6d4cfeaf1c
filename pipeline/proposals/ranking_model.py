"""The model that scores a box from its features: gradient-boosted regression trees, stored as JSON.

Every tree has the same depth D and is stored as a complete binary tree: 2^D - 1 questions in the order of a
heap (the questions after question q are 2q + 1 and 2q + 2), then 2^D values from left to right. A box goes
left where its feature is at most the threshold. The score is the base plus the values of all trees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import json_reader, storage, uris
from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, JsonFields
from pipeline.proposals.feature_names import FEATURES

FORMAT = "box ranking"
FORMAT_VERSION = 1
MAX_BYTES = 4_000_000
MAX_DEPTH = 10
MAX_TREES = 1000
PACKAGED = Path(__file__).with_name("ranking_model.json")


@dataclass(frozen=True)
class RankingModel:
    """T trees of depth D over the features `FEATURES`."""

    questions: NDArray[np.int32]
    """`(T, 2^D - 1)`: the column that each question looks at."""
    thresholds: NDArray[np.float32]
    """`(T, 2^D - 1)`."""
    values: NDArray[np.float32]
    """`(T, 2^D)`."""
    base: float
    training: Mapping[str, Any]
    """How it was trained: images, strategies, settings; for the reader."""

    @property
    def depth(self) -> int:
        """Questions from the root to a value."""
        return int(self.values.shape[1]).bit_length() - 1

    def to_json(self) -> str:
        """The text of the model's file; equal models have equal text."""
        trees = [
            json.dumps(
                {
                    "questions": questions.tolist(),
                    "thresholds": _shorten(thresholds),
                    "values": _shorten(values),
                },
                separators=(",", ":"),
            )
            for questions, thresholds, values in zip(
                self.questions, self.thresholds, self.values, strict=True
            )
        ]
        head = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "training": self.training,
            "features": list(FEATURES),
            "depth": self.depth,
            "base": _shorten(np.array([self.base], np.float32))[0],
        }
        return json.dumps(head, indent=1)[:-2] + ',\n "trees": [\n' + ",\n".join(trees) + "\n]}\n"


def _shorten(numbers: NDArray[np.float32]) -> list[float]:
    """The shortest decimals that are these float32 numbers again."""
    return [float(str(number)) for number in numbers]


def digest_model(content: bytes) -> str:
    """The digest that names a model's file."""
    return hashlib.sha256(content).hexdigest()


def read_packaged_model() -> bytes:
    """The file of the model that `learned` uses."""
    return PACKAGED.read_bytes()


def read_model(uri: str) -> bytes:
    """Read a model's file.

    Raises:
        StorageError: the store fails, or nothing is there.
        InvalidConfiguration: the file is larger than a model can be.
    """
    content = storage.read(uris.make_absolute(uri))
    if len(content) > MAX_BYTES:
        raise InvalidConfiguration(
            f"--ranking {uris.redact_uri(uri)} has {len(content)} bytes, a model at most {MAX_BYTES}"
        )
    return content


def parse_model(content: bytes, name: str) -> RankingModel:
    """Parse and check a model.

    Args:
        content: the file.
        name: of the file, for messages.

    Raises:
        InvalidConfiguration: not a model, one of another version or with other features, or a damaged one.
    """
    try:
        return _read_model(json_reader.parse_fields(content))
    except InvalidJson as error:
        raise InvalidConfiguration(
            f"{name} is no ranking model of jobs/rank.py: {error}"
        ) from error


def _read_model(fields: JsonFields) -> RankingModel:
    if fields.read_text("format") != FORMAT:
        raise InvalidJson(f"format is not {FORMAT!r}")
    version = fields.read_integer("version")
    if version != FORMAT_VERSION:
        raise InvalidJson(f"version is {version}, expected {FORMAT_VERSION}")
    if tuple(fields.read_texts("features")) != FEATURES:
        raise InvalidJson("its features are not those of this release: train it again")
    depth = fields.read_integer("depth", at_least=1)
    trees = fields.read_list("trees")
    if depth > MAX_DEPTH or not 1 <= len(trees) <= MAX_TREES:
        raise InvalidJson(
            f"it has {len(trees)} trees of depth {depth}, expected 1 to {MAX_TREES} of at most {MAX_DEPTH}"
        )
    questions, thresholds, values = zip(*(_read_tree(tree, depth) for tree in trees), strict=True)
    return RankingModel(
        np.array(questions, np.int32),
        np.array(thresholds, np.float32),
        np.array(values, np.float32),
        fields.read_number("base"),
        fields.read_object("training").values,
    )


def _read_tree(tree: object, depth: int) -> tuple[list[int], list[float], list[float]]:
    fields = json_reader.as_fields(tree)
    count = 2**depth - 1
    questions = fields.read_numbers("questions", count)
    if not all(json_reader.is_integer(q, 0) and q < len(FEATURES) for q in questions):
        raise InvalidJson(f"questions are not all features, 0 to {len(FEATURES) - 1}")
    numbers = fields.read_numbers("thresholds", count), fields.read_numbers("values", count + 1)
    largest = float(np.finfo(np.float32).max)
    if any(abs(number) > largest for column in numbers for number in column):
        raise InvalidJson("a number of it is too large")
    return questions, *numbers


@cache
def load_packaged_model() -> tuple[RankingModel, str]:
    """The model that `learned` uses, and its digest."""
    content = read_packaged_model()
    return parse_model(content, PACKAGED.name), digest_model(content)


def join_trees(
    trees: Iterable[tuple[list[int], list[float], list[float]]],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Stack trees, each its questions, thresholds and values, into the arrays of a `RankingModel`."""
    questions, thresholds, values = zip(*trees, strict=True)
    return (
        np.array(questions, np.int32),
        np.array(thresholds, np.float32),
        np.array(values, np.float32),
    )
