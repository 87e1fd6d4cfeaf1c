"""Label Studio: tasks with predictions to review, and the labelling configuration that they fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.errors import UnreadableDataset
from pipeline.exports.export_format import ReadStream, join_texts
from pipeline.exports.image_batch import ImageBatch, format_numbers

TASKS_NAME = "tasks.json"
CONFIGURATION_NAME = "labeling_config.xml"


@dataclass(frozen=True)
class LabelStudioTasks:
    """`tasks.json`: one task per image with one prediction; boxes in percent of the image's sides.

    Source: Label Studio's guide, "Import pre-annotated data".
    """

    classes: tuple[str, ...]
    model_version: str
    """Names the detector in Label Studio."""
    prefix: tuple[str, str] | None = None
    """A start of the images' URIs, and what stands in its place in their addresses."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The tasks."""
        return ("tasks",)

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The task of each image.

        Raises:
            UnreadableDataset: the size of an image is unknown.
        """
        assert batch.scores is not None
        percent = 100 * batch.normalise_boxes()
        columns = [*percent[:, :2].T, *(percent[:, 2:] - percent[:, :2]).T]
        values = list(zip(*(format_numbers(np.round(c, 6)) for c in columns), strict=True))
        scores = format_numbers(batch.scores)
        labels = [json.dumps(label, ensure_ascii=False) for label in self.classes]
        version = json.dumps(self.model_version, ensure_ascii=False)
        tasks = [b""] * len(batch)
        for index in batch.iterate_kept():
            size = batch.sizes[index]
            if size is None:
                raise UnreadableDataset(
                    f"image {batch.image_ids[index]!r} has no width and height, which percents need"
                )
            boxes = batch.slice_boxes(index)
            results = [
                f'{{"id": "{batch.first_row + index}-{number}", "type": "rectanglelabels", '
                '"from_name": "label", "to_name": "image", '
                f'"original_width": {size[0]}, "original_height": {size[1]}, "image_rotation": 0, '
                f'"score": {score}, "value": {{"rotation": 0, "x": {x}, "y": {y}, "width": {width}, '
                f'"height": {height}, "rectanglelabels": [{labels[class_id]}]}}}}'
                for number, (class_id, score, (x, y, width, height)) in enumerate(
                    zip(batch.class_ids[boxes].tolist(), scores[boxes], values[boxes], strict=True)
                )
            ]
            data = {
                "image": self._name_image(batch.uris[index]),
                "image_id": batch.image_ids[index],
            }
            best = max(batch.scores[boxes].tolist(), default=0.0)
            tasks[index] = (
                f'{{"data": {json.dumps(data, ensure_ascii=False)}, "predictions": [{{"model_version": '
                f'{version}, "score": {best:.6g}, "result": [{", ".join(results)}]}}]}}'
            ).encode()
        return {"tasks": tasks}

    def _name_image(self, uri: str) -> str:
        if self.prefix is None:
            return uri
        folder, replacement = self.prefix
        return replacement + quote(uri.removeprefix(folder))

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        """No image has files of its own."""
        return iter(())

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The tasks, and the configuration of the project that takes them."""
        yield TASKS_NAME, join_texts(read("tasks"), b"[\n", b",\n", b"\n]\n")
        labels = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in self.classes)
        yield (
            CONFIGURATION_NAME,
            [
                (
                    '<View>\n  <Image name="image" value="$image"/>\n'
                    f'  <RectangleLabels name="label" toName="image">\n{labels}'
                    "  </RectangleLabels>\n</View>\n"
                ).encode()
            ],
        )
