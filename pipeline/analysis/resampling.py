"""A bootstrap over images for figures that are computed from matches: a bounded sample, resampled by weights.

The sample is all images, up to 20,000 of them with a million rows of matches; of more, those with the
lowest hash of seed and row. A sample of m out of n images is resampled to n (weights of mean n / m; Kleiner
et al., A scalable bootstrap for massive data, 2014), and the interval is centred on the figure of all
images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.analysis.estimate import UNDEFINED, Estimate
from pipeline.analysis.match_outcomes import concatenate_matches
from pipeline.analysis.matching import Matches
from pipeline.analysis.poisson_weights import draw_weights, hash_rows

CONFIDENCE = 0.95
MAX_IMAGES = 20_000
MAX_ROWS = 1_000_000


class ImageSample:
    """Keeps the matches of a seeded sample of the images; the same sample in any order and grouping.

    Args:
        seed: chooses the sample.
        max_images: the most images to keep.
        max_rows: the most rows of matches to keep.
        share: the share of the images that may be kept, as `limit_share` returns it if their number is known:
            so a part of them is not kept in vain.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        max_images: int = MAX_IMAGES,
        max_rows: int = MAX_ROWS,
        share: float = 1.0,
    ) -> None:
        self.seed = seed
        self.max_images, self.max_rows = max_images, max_rows
        self.images = 0
        """Annotated images with rows of matches, in the sample or not."""
        self._cutoff = min(int(share * 2**64), 2**64 - 1)
        """The lowest hash of an image that was left out: all images below it are in the sample."""
        self._pieces: list[tuple[Matches, NDArray[np.int16]]] = []
        self._rows = 0

    def update(self, matches: Matches, slices: NDArray[np.int16] | None = None) -> None:
        """Add the matches of whole images.

        Args:
            matches: the rows of the images.
            slices: what else is kept of each row, `(R, S)`.
        """
        if slices is None:
            slices = np.empty((len(matches), 0), np.int16)
        self.images += len(np.unique(matches.row[matches.is_annotated]))
        kept = np.flatnonzero(matches.is_annotated)
        kept = kept[hash_rows(matches.row[kept], self.seed) < np.uint64(self._cutoff)]
        self._keep(matches[kept], slices[kept])

    def merge(self, other: ImageSample) -> None:
        """Add other images."""
        self.images += other.images
        self._cutoff = min(self._cutoff, other._cutoff)
        for piece in other._pieces:
            self._keep(*piece)
        self._prune()

    def _keep(self, matches: Matches, slices: NDArray[np.int16]) -> None:
        self._pieces.append((matches, slices))
        self._rows += len(matches)
        if self._rows > 1.5 * self.max_rows or len(self._pieces) > 256:
            self._prune()

    def _prune(self) -> None:
        """Keep the images with the lowest hashes as long as they fit."""
        if not self._pieces:
            return
        matches = concatenate_matches([matches for matches, _ in self._pieces])
        slices = np.concatenate([slices for _, slices in self._pieces])
        hashes = hash_rows(matches.row, self.seed)
        unique, counts = np.unique(hashes, return_counts=True)
        fits = (np.cumsum(counts) <= self.max_rows) & (unique < np.uint64(self._cutoff))
        fits[self.max_images :] = False
        if not fits.all():
            self._cutoff = min(self._cutoff, int(unique[int((~fits).argmax())]))
            is_kept = hashes < np.uint64(self._cutoff)
            matches, slices = matches[is_kept], slices[is_kept]
        self._pieces, self._rows = [(matches, slices)], len(matches)

    def collect(self) -> tuple[Matches, NDArray[np.int16]]:
        """Return the matches of the sample, in the order of the manifest, and what else is kept."""
        self._prune()
        if not self._pieces:
            return concatenate_matches([]), np.empty((0, 0), np.int16)
        matches, slices = self._pieces[0]
        order = np.argsort(matches.row, kind="stable")
        return matches[order], slices[order]


def limit_share(images: int, rows: int) -> float:
    """Return a share of the images that is larger than a sample, so that their order decides nothing.

    Args:
        images: the annotated images.
        rows: their rows of matches, or fewer.
    """
    return min(1.0, 1.25 * min(MAX_IMAGES / max(images, 1), MAX_ROWS / max(rows, 1)))


class Resampler:
    """Resamples figures that are ratios of sums over images.

    Args:
        sample: the images.
        resamples: the number of resamples, R.
    """

    def __init__(self, sample: ImageSample, resamples: int = 1000) -> None:
        self.matches, self.slices = sample.collect()
        """The matches of the sampled images, in the order of the manifest, and the slices of each."""
        rows, image = np.unique(self.matches.row, return_inverse=True)
        self.image: NDArray[np.int64] = image
        """The index of each match's image among those of the sample."""
        self.images = len(rows)
        """Images in the sample."""
        self.images_in_all = sample.images
        self.seed, self.confidence = sample.seed, CONFIDENCE
        mean = sample.images / max(self.images, 1)
        drawn = draw_weights(rows, resamples, sample.seed, mean)
        self.weights: NDArray[np.float32] = np.concatenate(
            [np.ones((len(rows), 1)), drawn], axis=1
        ).astype(np.float32)
        """`(images, 1 + R)`: the sample itself, then the resamples."""

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence if the sample is not all images."""
        if self.images == self.images_in_all:
            return ()
        return (
            f"intervals are estimated from a seeded sample of {self.images} of the "
            f"{self.images_in_all} images",
        )

    def resample_sums(
        self, figure: NDArray[Any], image: NDArray[Any], values: NDArray[Any], figures: int
    ) -> list[NDArray[np.float64]]:
        """Sum values by figure in every resample.

        Args:
            figure: the figure `(N,)` to which each row of values belongs, from 0.
            image: the row's image `(N,)`, an index as in `image`.
            values: `(N, C)`, numbers or flags.
            figures: the number of figures, F.

        Returns:
            C arrays `(F, 1 + R)`; the first column is the sample itself.
        """
        positions = (figure.astype(np.int64), image.astype(np.int64))
        sums = []
        for column in values.T:
            matrix = sparse.coo_matrix(
                (column.astype(np.float32), positions), (figures, self.images)
            ).tocsr()
            sums.append(np.asarray(matrix @ self.weights, np.float64))
        return sums

    def summarize_ratios(
        self,
        numerator: NDArray[Any],
        denominator: NDArray[Any],
        resampled_numerator: NDArray[np.float64],
        resampled_denominator: NDArray[np.float64],
    ) -> list[Estimate]:
        """Return the ratio of each figure over all images `(F,)` with its interval from `(F, 1 + R)`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(numerator, float) / np.asarray(denominator, float)
            resampled = resampled_numerator / resampled_denominator
        resampled[resampled_denominator == 0] = np.nan
        values[np.asarray(denominator) == 0] = np.nan
        return self.summarize(values, resampled)

    def summarize(
        self, values: NDArray[np.float64], resampled: NDArray[np.float64]
    ) -> list[Estimate]:
        """Return figures over all images `(F,)`, NaN if undefined, with intervals from `(F, 1 + R)`."""
        low, high = _find_percentiles(resampled[:, 1:])
        shift = np.where(np.isnan(resampled[:, 0]), 0.0, values - resampled[:, 0])
        if self.images == self.images_in_all:
            shift = np.zeros_like(shift)
        return [
            UNDEFINED if np.isnan(value) else Estimate(float(value), _to_number(a), _to_number(b))
            for value, a, b in zip(values, low + shift, high + shift, strict=True)
        ]


def _find_percentiles(
    resampled: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the central 95 % of each row's numbers, without its NaNs; NaN without numbers."""
    ranked = np.sort(resampled, axis=1)  # NaNs go last
    count = (~np.isnan(ranked)).sum(axis=1)
    ends = []
    for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        position = share * np.maximum(count - 1, 0)
        lower = position.astype(np.int64)
        upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
        index = np.arange(len(ranked))
        if ranked.shape[1] == 0:
            ends.append(np.full(len(ranked), np.nan))
            continue
        part = position - lower
        ends.append((1 - part) * ranked[index, lower] + part * ranked[index, upper])
    return ends[0], ends[1]


def _to_number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
