"""The inputs of fine-tuning: windows of images anywhere in the dataset, read image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, imaging, storage
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.errors import AccessDenied, MissingObject, UnreadableImage
from pipeline.image_members import read_members
from pipeline.shards import Parts
from pipeline.stated_sizes import check_size, pair_sizes

if TYPE_CHECKING:
    from pipeline.baselines.fine_tuning import WindowInputs
    from pipeline.baselines.window_sampling import Windows


def group_by_image(image: NDArray[np.int64]) -> list[tuple[int, NDArray[np.intp]]]:
    """Each image with the rows of its windows, in the order of the manifest."""
    order = np.argsort(image, kind="stable")
    images, starts = np.unique(image[order], return_index=True)
    return list(zip(images.tolist(), np.split(order, starts[1:]), strict=True))


class WarpedWindowReader:
    """R-CNN: reads each image once per block and warps its windows."""

    def __init__(self, plan: BaselinePlan) -> None:
        from pipeline.baselines.windows import choose_fill  # noqa: PLC0415

        self._plan = plan
        self._fill = choose_fill(plan.preprocessing)
        self.bytes_per_window = 3 * plan.settings.window_size**2
        self.bytes_read = 0
        """Bytes of the images so far."""

    def __call__(self, windows: Windows) -> tuple[WindowInputs, NDArray[np.bool_]]:
        """Warp windows; returns `(N, S, S, 3)`, and which of them could be read.

        Raises:
            StorageError: the store does not answer.
        """
        from pipeline.baselines.windows import warp_windows  # noqa: PLC0415

        settings = self._plan.settings
        size = settings.window_size
        inputs = np.zeros((len(windows), size, size, 3), np.uint8)
        is_readable = np.zeros(len(windows), bool)
        for row, positions in group_by_image(windows.image):
            try:
                image = self._read_image(row)
            except (UnreadableImage, MissingObject, AccessDenied):
                continue
            boxes = geometry.clip(windows.boxes[positions], image.shape[1], image.shape[0])
            inside = geometry.is_nonempty(boxes)
            is_readable[positions[inside]] = True
            inputs[positions[inside]] = warp_windows(
                image, boxes[inside], size, settings.window_context, self._fill
            )
        return inputs, is_readable

    def _read_image(self, row: int) -> NDArray[np.uint8]:
        from pipeline.training.sample_loader import read_with_retries  # noqa: PLC0415

        manifest = self._plan.dataset.manifest
        table = manifest.read(row, 1, manifest.image_columns)
        (member,) = read_members(table, manifest.uri, row)
        data = read_with_retries(table["uri"][0].as_py(), member)
        self.bytes_read += len(data)
        image = imaging.decode_image(data, manifest.decoding)
        size = (image.shape[1], image.shape[0])
        check_size(size, pair_sizes(table)[0], turned=manifest.decoding.exif == "apply")
        return image


class PooledWindowReader:
    """SPPnet: reads the stored maps of each image and pools its windows."""

    def __init__(self, plan: BaselinePlan, maps: Parts) -> None:
        from pipeline.baselines.spatial_pyramid import count_cells  # noqa: PLC0415
        from pipeline.engine.baselines.extraction import StageNetwork  # noqa: PLC0415

        self._network = StageNetwork(plan)
        self._maps = maps
        self._sizes = storage.list_sizes(maps.uri)
        self._first_rows = np.array([shard.first_row for shard in maps.shards])
        self.width = self._network.channels * count_cells(plan.settings.pyramid)
        """Length of a pooled pyramid."""
        self.bytes_per_window = 4 * self.width
        self.bytes_read = 0

    def __call__(self, windows: Windows) -> tuple[WindowInputs, NDArray[np.bool_]]:
        """Pool windows; returns `(N, C * cells)`, and which of them have maps.

        Raises:
            UnreadableDataset: a part of the maps is damaged.
            StorageError: the store does not answer.
        """
        import torch  # noqa: PLC0415

        from pipeline.baselines.feature_table import read_maps  # noqa: PLC0415

        inputs = np.zeros((len(windows), self.width), np.float32)
        is_readable = np.zeros(len(windows), bool)
        ordinal, table, maps = -1, None, None
        for row, positions in group_by_image(windows.image):
            own = int(np.searchsorted(self._first_rows, row, side="right")) - 1
            shard = self._maps.shards[own]
            if own != ordinal or table is None or maps is None:
                ordinal, table = own, self._maps.read(shard)
                maps = read_maps(table, self._network.channels, shard.part_name)
                self.bytes_read += self._sizes.get(shard.part_name, 0)
            of_image = maps[row - shard.first_row]
            if of_image is None:
                continue
            index = row - shard.first_row
            size = (table["height"][index].as_py(), table["width"][index].as_py())
            boxes = geometry.clip(windows.boxes[positions], size[1], size[0])
            inside = geometry.is_nonempty(boxes)
            if not inside.any():
                continue
            tensors = [torch.from_numpy(np.array(m))[None] for m in of_image]
            pooled = self._network.pyramid.pool(tensors, size, boxes[inside])
            is_readable[positions[inside]] = True
            inputs[positions[inside]] = pooled.cpu().numpy()
        return inputs, is_readable


ReadWindowInputs = Callable[["Windows"], tuple["WindowInputs", NDArray[np.bool_]]]
