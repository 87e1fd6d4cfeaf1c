"""Evaluates regression trees that are all of one depth: no branch depends on a box."""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np

from pipeline.kernel_cache import njit

_BLOCK = 64


@njit(cache=True, nogil=True, error_model="numpy")
def score_rows(rows, questions, thresholds, values, base, scores):  # type: ignore[no-untyped-def]
    """Fill `scores` float32 `(N,)` with the base plus the values of all trees, added in their order.

    Args:
        rows: float32 `(N, F)`, the features.
        questions: int32 `(T, 2^D - 1)`.
        thresholds: float32 `(T, 2^D - 1)`.
        values: float32 `(T, 2^D)`.
        base: float32.
        scores: receives the scores.
    """
    # Block by block, so that the rows stay in the nearest cache while all trees pass over them.
    trees, inner = questions.shape
    depth = 0
    while (1 << depth) <= inner:
        depth += 1
    for begin in range(0, len(rows), _BLOCK):
        end = min(begin + _BLOCK, len(rows))
        for i in range(begin, end):
            scores[i] = base
        for t in range(trees):
            asked, limits, leaves = questions[t], thresholds[t], values[t]
            for i in range(begin, end - 3, 4):
                # Four boxes side by side: the steps of one wait for each other, those of four do not.
                first, second, third, fourth = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
                a = b = c = d = np.uint32(0)
                for _ in range(depth):
                    a = _step(first, asked, limits, a)
                    b = _step(second, asked, limits, b)
                    c = _step(third, asked, limits, c)
                    d = _step(fourth, asked, limits, d)
                scores[i] += leaves[a - np.uint32(inner)]
                scores[i + 1] += leaves[b - np.uint32(inner)]
                scores[i + 2] += leaves[c - np.uint32(inner)]
                scores[i + 3] += leaves[d - np.uint32(inner)]
            for i in range(end - (end - begin) % 4, end):
                node = np.uint32(0)
                for _ in range(depth):
                    node = _step(rows[i], asked, limits, node)
                scores[i] += leaves[node - np.uint32(inner)]


@njit(inline="always")
def _step(row, asked, limits, node):  # type: ignore[no-untyped-def]
    goes_right = row[np.uint32(asked[node])] > limits[node]
    return np.uint32(2) * node + np.uint32(1) + np.uint32(goes_right)
