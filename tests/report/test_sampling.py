"""Counts are exact, and samples depend on the rows alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.sampling import FamilySampler, hash_text

ROWS = 4000


def _draw_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    galleries = rng.integers(-1, 3, ROWS)
    images = np.sort(rng.integers(0, 300, ROWS))
    starts = np.searchsorted(images, images)
    columns = [images // 50, images, np.arange(ROWS) - starts, np.ones(ROWS, int)]
    references = np.stack(columns, axis=1)
    hashes = np.array([hash_text(f"image {image}") for image in images], np.uint64)
    return galleries, hashes, references, rng.integers(0, 2, ROWS)


def _sample(order: list[slice], merged: bool, seed: int = 0, capacity: int = 20) -> list[list]:
    galleries, hashes, references, priorities = _draw_rows()
    whole = FamilySampler("f", 3, capacity, seed)
    for piece in order:
        target = FamilySampler("f", 3, capacity, seed) if merged else whole
        target.update(galleries[piece], hashes[piece], references[piece], priorities[piece])
        if merged:
            target.shrink()
            whole.merge(target)
    samples = whole.compute()
    return [[s.total, s.references.tolist()] for _, s in sorted(samples.items())]


@pytest.mark.parametrize("merged", [False, True])
def test_samples_do_not_depend_on_grouping_or_order(merged: bool) -> None:
    whole = _sample([slice(0, ROWS)], merged=False)
    pieces = [slice(start, start + 130) for start in range(0, ROWS, 130)]
    assert _sample(pieces, merged) == whole
    assert _sample(pieces[::-1], merged) == whole
    assert _sample(pieces, merged, seed=1) != whole


def test_totals_and_sizes() -> None:
    galleries, *_, priorities = _draw_rows()
    for index, (total, references) in enumerate(_sample([slice(0, ROWS)], merged=False)):
        assert total == (galleries == index).sum()
        assert len(references) == 20
    preferred = (galleries == 0) & (priorities == 0)
    everything = _sample([slice(0, ROWS)], merged=False, capacity=ROWS)[0][1]
    first = {tuple(reference) for reference in everything[: int(preferred.sum())]}
    references = _draw_rows()[2]
    assert first == {tuple(row) for row in references[preferred].tolist()}


def test_every_row_is_equally_likely() -> None:
    hashes = np.array([hash_text(str(image)) for image in range(100)], np.uint64)
    zeros = np.zeros(100, int)
    references = np.stack([zeros, np.arange(100), zeros - 1, zeros], axis=1)
    chosen = np.zeros(100)
    for seed in range(400):
        sampler = FamilySampler("f", 1, 10, seed)
        sampler.update(np.zeros(100, int), hashes, references)
        chosen[sampler.compute()[0].references[:, 1]] += 1
    # Binomial with 400 draws at 0.1: mean 40, deviation 6.
    assert abs(chosen.mean() - 40) < 1e-9
    assert chosen.min() > 15
    assert chosen.max() < 68
