"""The options of each source that `jobs/prepare.py` reads; every class opens its dataset."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.entry import JobOptions
from jobs.prepare_subsets import Filter, Merge, Split
from pipeline.errors import InvalidConfiguration
from pipeline.imaging import Exif, Truncated
from pipeline.option_ranges import check_fields
from pipeline.runs.options import MOST_SECONDS
from pipeline.sources.coco import open_coco
from pipeline.sources.cvat import open_cvat
from pipeline.sources.dataset import Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.img2dataset import open_img2dataset
from pipeline.sources.labelme import open_labelme
from pipeline.sources.labelstudio import open_labelstudio
from pipeline.sources.lvis import open_lvis
from pipeline.sources.object_fields import ObjectFields
from pipeline.sources.openimages import open_openimages
from pipeline.sources.options import Mapper, SourceOptions
from pipeline.sources.parquet_images import ParquetLayout, open_parquet_images
from pipeline.sources.voc import open_voc
from pipeline.sources.webdataset import WebDatasetLayout, open_webdataset
from pipeline.sources.yolo import open_yolo


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(JobOptions, ABC):
    """Options of every source. Paths are local or any fsspec URI, such as s3:// and gs://."""

    output: str
    """The manifest to write: a .parquet file, or a folder. In a folder, up to a million images become
    manifest.parquet; more become several files, which all jobs read as one manifest: pass the folder."""
    max_invalid: float = 0.05
    """Share of the images that may be missing, unreadable or wrongly annotated, and of the boxes that may
    be without area or outside their image. These are left out and counted; above the share, the job fails."""
    skip_invalid: bool = False
    """Leave out any number of invalid images and boxes."""
    strict: bool = False
    """Fail at the first image or box that would be left out, and at a line that repeats an image."""
    check: bool = False
    """Then check the images and boxes as analyze dataset does, into a folder beside the manifest whose name
    ends in -check: suspicious boxes, duplicates, unreadable images."""
    check_sizes: bool = False
    """Compare every annotated size with the image's header, not only where a box reaches out of the image.
    The job then reads the first 64 KB of each image: one request per image on an object store."""
    exif: Exif = "ignore"
    """apply: sizes and boxes are those of the images as viewers display them, turned by their EXIF
    orientation, and all later jobs decode them so. ignore: those of the stored pixels. apply reads each
    image's header, as --check-sizes does."""
    truncated: Truncated = "reject"
    """accept: later jobs use a JPEG that ends early, grey where its pixels are missing. reject: it fails."""

    def __post_init__(self) -> None:
        """Reject values that are not possible."""
        check_fields(self, "max_invalid", at_least=0, at_most=1)
        if self.strict and self.skip_invalid:
            raise InvalidConfiguration(
                "--strict fails at what --skip-invalid leaves out: pass one of them"
            )

    @property
    def source(self) -> SourceOptions:
        """The options as the sources take them."""
        return SourceOptions(
            max_invalid=1.0 if self.skip_invalid else self.max_invalid,
            strict=self.strict,
            check_sizes=self.check_sizes,
            exif=self.exif,
            mapper=self.load_mapper(),
        )

    def load_mapper(self) -> Mapper | None:
        """What reads the source's files; None for threads of this process."""
        return None

    @abstractmethod
    def open_dataset(self) -> Dataset:
        """Open the dataset that the options name."""


@dataclass(frozen=True, kw_only=True)
class DistributedOptions(PrepareOptions, ABC):
    """Options of the sources that can be read on a cluster."""

    distribute: bool = False
    """Read files and headers of images in Ray tasks: on the cluster of RAY_ADDRESS, or on all cores of this
    machine. It pays off for thousands of files or millions of images."""
    no_capacity_after: float = 300.0
    """Seconds that --distribute waits for a free core at the start, and later for a node that has one."""

    def __post_init__(self) -> None:
        """Reject values that are not possible."""
        super().__post_init__()
        check_fields(self, "no_capacity_after", above=0, below=MOST_SECONDS)

    def load_mapper(self) -> Mapper | None:
        """Ray's, if it is wanted: Ray takes seconds to load."""
        if not self.distribute:
            return None
        from pipeline.engine.prepare.task_mapper import map_in_tasks  # noqa: PLC0415

        return functools.partial(map_in_tasks, no_capacity_after=self.no_capacity_after)


@dataclass(frozen=True, kw_only=True)
class Voc(PrepareOptions):
    """A split of PASCAL VOC, or of a dataset in the same layout, or a folder of its XML files."""

    root: str
    """The devkit that contains VOC<year>, or a folder with JPEGImages, Annotations and ImageSets. Without
    --split also a folder in which images and XML files are, or one with images and annotations."""
    split: str | None = None
    """A list in ImageSets/Main, such as trainval; leave it out to read every annotation."""
    year: int | None = None
    """The devkit's year; leave it out if --root itself contains JPEGImages."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default VOC's 20, or all labels of the dataset, sorted."""
    unlabelled: bool = False
    """Do not read annotations: the manifest has no objects."""

    def open_dataset(self) -> Dataset:
        """Open the split."""
        return open_voc(
            self.root,
            self.split,
            self.year,
            classes=self.classes,
            unlabelled=self.unlabelled,
            options=self.source,
        )


@dataclass(frozen=True, kw_only=True)
class Coco(PrepareOptions):
    """A COCO instances file."""

    annotations: str
    """The JSON file of annotations."""
    images: str | None = None
    """The folder of its images; without it, each image is read from its coco_url."""
    unlabelled: bool = False
    """Read only the file's images and categories: the manifest has no objects."""

    def open_dataset(self) -> Dataset:
        """Open the file."""
        return open_coco(self.annotations, self.images, self.unlabelled, self.source)


@dataclass(frozen=True, kw_only=True)
class Lvis(PrepareOptions):
    """An LVIS file. The manifest also holds the classes that each image is annotated for."""

    annotations: str
    """The JSON file of annotations."""
    images: str | None = None
    """The folder of COCO's images; without it, each image is read from its coco_url."""
    unlabelled: bool = False
    """Read only the file's images and categories: the manifest has no objects."""

    def open_dataset(self) -> Dataset:
        """Open the file."""
        return open_lvis(self.annotations, self.images, self.unlabelled, self.source)


@dataclass(frozen=True, kw_only=True)
class Yolo(PrepareOptions):
    """A split of a YOLO dataset: data.yaml, images/ and labels/."""

    root: str
    """The folder that holds data.yaml (or classes.txt), or the data.yaml itself."""
    split: str | None = None
    """A key of data.yaml, such as train; leave it out if the dataset has no splits."""

    def open_dataset(self) -> Dataset:
        """Open the split."""
        return open_yolo(self.root, self.split, self.source)


@dataclass(frozen=True, kw_only=True)
class Openimages(PrepareOptions):
    """A split of Open Images: the images that its CSV of boxes names."""

    images: str
    """The folder of the images, <ImageID>.jpg."""
    boxes: str
    """The CSV of boxes, such as oidv6-train-annotations-bbox.csv."""
    classes: str | None = None
    """The CSV of class descriptions; without it, classes have names such as /m/01g317."""
    hierarchy: str | None = None
    """The JSON file of the hierarchy, such as bbox_labels_600_hierarchy.json: every object is then also one
    of each class above its own, as Open Images' evaluation expects."""

    def open_dataset(self) -> Dataset:
        """Open the files."""
        return open_openimages(self.images, self.boxes, self.classes, self.source, self.hierarchy)


@dataclass(frozen=True, kw_only=True)
class Cvat(PrepareOptions):
    """A task or project, exported as CVAT for images 1.1."""

    annotations: str
    """The annotations.xml of the export."""
    images: str
    """The folder of the images."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default those of the task, in its order."""

    def open_dataset(self) -> Dataset:
        """Open the file."""
        return open_cvat(self.annotations, self.images, self.classes, self.source)


@dataclass(frozen=True, kw_only=True)
class Labelme(PrepareOptions):
    """A folder of images with LabelMe's JSON files."""

    root: str
    """The folder; images and JSON files may be in folders of their own below it."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default all labels of the dataset, sorted."""

    def open_dataset(self) -> Dataset:
        """Open the folder."""
        return open_labelme(self.root, self.classes, self.source)


@dataclass(frozen=True, kw_only=True)
class Labelstudio(PrepareOptions):
    """A project, exported from Label Studio as JSON or JSON-MIN."""

    annotations: str
    """The JSON file of the export."""
    images: str | None = None
    """The folder of the images; without it, each is read from its address on the web or in a store."""
    image_key: str | None = None
    """The key of the image in a task's data; by default image, or the only text."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default all labels of the export, sorted."""

    def open_dataset(self) -> Dataset:
        """Open the export."""
        return open_labelstudio(
            self.annotations,
            self.images,
            image_key=self.image_key,
            classes=self.classes,
            options=self.source,
        )


@dataclass(frozen=True, kw_only=True)
class Webdataset(DistributedOptions):
    """Images in uncompressed tar files, read where they lie; nothing is unpacked."""

    tars: tuple[str, ...]
    """The tar files; * and ? and {000..127} stand for several, a folder for its tar files."""
    image_keys: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Endings of images; of a sample with several, the first of these."""
    objects_key: str | None = None
    """Ending of the JSON annotation beside each image, such as json; without it, the manifest has no
    objects. An annotation is a list of objects, an object with lists of labels and boxes, or holds one of
    these as objects or annotations."""
    fields: Annotated[ObjectFields, tyro.conf.OmitArgPrefixes] = field(default_factory=ObjectFields)
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default all labels, sorted, which takes a second pass over
    the tar files."""
    prefix_ids: bool = False
    """image_id is TAR/KEY instead of KEY: for tar files that number their images alike."""

    def open_dataset(self) -> Dataset:
        """Open the tar files."""
        layout = WebDatasetLayout(
            self.image_keys, self.objects_key, self.fields, self.classes, self.prefix_ids
        )
        return open_webdataset(self.tars, layout, self.source)


@dataclass(frozen=True, kw_only=True)
class Parquet(DistributedOptions):
    """Images in a column of Parquet files, as on the Hugging Face Hub, read where they lie."""

    data: tuple[str, ...]
    """The Parquet files; * and ? and {000..127} stand for several, a folder for its Parquet files."""
    image_column: str = "image"
    """Column of the encoded images: bytes, or a struct with the field bytes."""
    id_column: str | None = None
    """Column of the image ids; by default an id is the file's name and the number of the row."""
    objects_column: str | None = None
    """Column of the objects: a list of objects, or an object with lists of labels and boxes; by default
    objects, if there is such a column."""
    fields: Annotated[ObjectFields, tyro.conf.OmitArgPrefixes] = field(default_factory=ObjectFields)
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default those in the metadata of the files, or all, sorted."""

    def open_dataset(self) -> Dataset:
        """Open the files."""
        layout = ParquetLayout(
            self.image_column, self.id_column, self.objects_column, self.fields, self.classes
        )
        return open_parquet_images(self.data, layout, self.source)


@dataclass(frozen=True, kw_only=True)
class Img2dataset(DistributedOptions):
    """The output of img2dataset. Images that it could not download become failed rows of every run."""

    root: str
    """Its output folder, with a table (00000.parquet) for each shard."""

    def open_dataset(self) -> Dataset:
        """Open the folder."""
        return open_img2dataset(self.root, self.source)


@dataclass(frozen=True, kw_only=True)
class Folder(DistributedOptions):
    """All images below a folder, without annotations."""

    images: str
    """The folder; images in its subfolders are included."""

    def open_dataset(self) -> Dataset:
        """Open the folder."""
        return open_folder(self.images, self.source)


Prepare = (
    Voc
    | Coco
    | Lvis
    | Yolo
    | Openimages
    | Cvat
    | Labelme
    | Labelstudio
    | Webdataset
    | Parquet
    | Img2dataset
    | Folder
    | Split
    | Merge
    | Filter
)
