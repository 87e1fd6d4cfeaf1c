"""The stream of samples: images read, decoded, resized and their RoIs drawn ahead of the training step.

Threads do the reading (Pillow gives the interpreter's lock back while it decodes and resizes); samples
come in the order of the plan, whichever is ready first. Nothing here needs torch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, imaging, storage
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.sampling import sample_rois
from pipeline.detector.targets import TargetStatistics
from pipeline.errors import StorageError, UnreadableImage
from pipeline.training.plan import WINDOW, Plan, Planned, generator
from pipeline.training.recipe import Recipe
from pipeline.training.source import Annotations, Slice, Source
from pipeline.training.survey import MIRRORED, candidates

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that an image is asked for before its store is given up."""


@dataclass(frozen=True)
class Sample:
    """One image as a training step takes it."""

    image_id: str
    image: NDArray[np.uint8]
    """RGB `(h, w, 3)`, flipped and resized, not yet normalised."""
    rois: NDArray[np.float32]
    """`(S, 4)` in pixels of `image`."""
    labels: NDArray[np.int64]
    """`(S,)`, 0 for background."""
    targets: NDArray[np.float32]
    """`(S, 4)`, normalised."""


@dataclass(frozen=True)
class Skipped:
    """An image of the plan that could not be read."""

    image_id: str
    reason: str


class SliceCache:
    """The slices of the last few shards; a slice is read by one thread while others wait for it."""

    def __init__(self, sources: Sequence[Source], size: int) -> None:
        self._sources = sources
        self._size = size
        self._lock = threading.Lock()
        self._slices: OrderedDict[tuple[int, int], Future[Slice]] = OrderedDict()

    def get(self, source: int, shard: int) -> Slice:
        """The slice of a shard, from memory where it is there."""
        key = (source, shard)
        with self._lock:
            future = self._slices.get(key)
            mine = future is None
            if future is None:
                future = self._slices[key] = Future()
                while len(self._slices) > self._size:
                    self._slices.popitem(last=False)
            self._slices.move_to_end(key)
        if mine:
            try:
                future.set_result(self._sources[source].read(shard))
            except BaseException as error:
                with self._lock:
                    self._slices.pop(key, None)
                future.set_exception(error)
        return future.result()


def _read(uri: str) -> bytes:
    """The bytes of an image; a store that does not answer is asked again."""
    for attempt in range(ATTEMPTS):
        try:
            return storage.read(uri)
        except (storage.MissingObject, storage.AccessDenied):
            raise
        except StorageError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(4**attempt)  # 1, 4, 16 s, as the detection runs wait
    raise AssertionError("the loop returns or raises")


class Dataset:
    """Makes the sample of any place in the plan; flip, scale and RoIs depend on (seed, epoch, image_id)."""

    def __init__(
        self,
        sources: Sequence[Source],
        recipe: Recipe,
        preprocessing: Preprocessing,
        statistics: TargetStatistics,
        seed: int,
    ) -> None:
        self._recipe = recipe
        self._preprocessing = preprocessing
        self._statistics = statistics
        self._seed = seed
        # Two windows: the next one's shards are read while the last samples of this one are drawn.
        self._slices = SliceCache(sources, 2 * WINDOW)

    def sample(self, planned: Planned) -> Sample | Skipped:
        """Read and prepare one image; one that is missing, forbidden or damaged is skipped.

        Raises:
            StorageError: its store does not answer; nothing is skipped for that, as a run without the
                outage would not have.
        """
        place = planned.place
        part = self._slices.get(place.source, place.shard)
        image_id = part.image_ids[place.row]
        try:
            image = imaging.decode(_read(part.uris[place.row]))
        except (UnreadableImage, storage.MissingObject, storage.AccessDenied) as error:
            return Skipped(image_id, str(error))
        rng = generator(self._seed, planned.epoch, image_id)
        known = part.annotations[place.row]
        assert known is not None, "the survey leaves out what is not annotated"
        return self.prepare(image_id, image, known, part.proposals[place.row], rng)

    def prepare(
        self,
        image_id: str,
        image: NDArray[np.uint8],
        known: Annotations,
        proposals: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Sample:
        """The sample of a decoded image `(H, W, 3)` with its objects and proposals `(N, 4)`."""
        recipe = self._recipe
        height, width = image.shape[:2]
        side = recipe.short_sides[int(rng.integers(len(recipe.short_sides)))]
        mirrored = rng.random() < recipe.flip
        objects = geometry.clip(known.boxes, width, height)
        inside = geometry.nonempty(objects)
        drawn = sample_rois(
            candidates(geometry.clip(proposals, width, height), recipe),
            objects[inside],
            known.labels[inside],
            known.crowd[inside],
            rng,
            rois_per_image=recipe.rois_per_image,
            fg_fraction=recipe.foreground_fraction,
            fg_iou=recipe.foreground_iou,
            bg_iou=(recipe.background_iou_low, recipe.background_iou_high),
        )
        rois, targets = drawn.boxes, drawn.targets
        resized = self._preprocessing.resized(image, short_side=side, max_side=recipe.max_side)
        if mirrored:
            resized = resized[:, ::-1]
            rois = geometry.flip_horizontally(rois, width)
            targets = targets * MIRRORED
        rois = geometry.scale(rois, resized.shape[1] / width, resized.shape[0] / height)
        targets = self._statistics.normalise(targets, drawn.labels)
        return Sample(image_id, np.array(resized), rois, drawn.labels, targets)


class SampleStream:
    """The samples of one worker in the plan's order, prepared ahead by threads."""

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        *,
        start: int,
        rank: int = 0,
        workers: int = 1,
        threads: int = 1,
        ahead: int = 8,
    ) -> None:
        self._planned = plan.samples(start, rank, workers)
        self._dataset = dataset
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ingest")
        self._waiting: deque[Future[Sample | Skipped]] = deque()
        self._ahead = ahead

    def __iter__(self) -> Iterator[Sample | Skipped]:
        while True:
            for planned in islice(self._planned, self._ahead + 1 - len(self._waiting)):
                self._waiting.append(self._pool.submit(self._dataset.sample, planned))
            if not self._waiting:
                return
            yield self._waiting.popleft().result()

    def close(self) -> None:
        """Drop what is prepared and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
