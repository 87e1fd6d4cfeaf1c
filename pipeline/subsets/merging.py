"""Merges manifests: classes by their maps, images once, orientation alike, conflicts by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline import uris
from pipeline.annotated_classes import NotAnnotated, list_annotated_classes
from pipeline.errors import InvalidConfiguration
from pipeline.image_members import read_members
from pipeline.manifest_writer import ManifestContents
from pipeline.manifests import ROW_GROUP, AnnotatedObject, Manifest, ManifestRow
from pipeline.subsets.class_maps import ClassMap, merge_classes

Repeated = Literal["reject", "first"]
"""What happens to an image that two manifests have: reject the merge, or keep the first one."""


@dataclass
class MergeTally:
    """What a merge did."""

    images: int = 0
    objects: int = 0
    left_out_objects: int = 0
    """Objects of classes that a map leaves out."""
    repeated: int = 0
    """Images that an earlier manifest had."""
    differing: int = 0
    """Those among them whose objects differ from the first one's."""


@dataclass(frozen=True)
class Merge:
    """Manifests that are merged, checked against each other."""

    manifests: Sequence[Manifest]
    maps: Sequence[ClassMap]
    contents: ManifestContents
    classes: Sequence[tuple[str, ...]]
    """The old classes of each manifest."""
    repeated: Repeated
    prefixes: Sequence[str]
    """Before the image_ids of each manifest."""
    notes: tuple[str, ...] = ()
    tally: MergeTally = field(default_factory=MergeTally)

    def read_rows(self) -> Iterator[ManifestRow]:
        """The images of all manifests, in order; `tally` counts them.

        Raises:
            InvalidConfiguration: an image is there twice.
        """
        seen: dict[object, tuple[str, int]] = {}
        for manifest, class_map, classes, prefix in zip(
            self.manifests, self.maps, self.classes, self.prefixes, strict=True
        ):
            for row in _read_rows(manifest):
                mapped = self._map_row(row, class_map, classes)
                mapped = replace(mapped, image_id=f"{prefix}{row.image_id}")
                if not self._is_repeated(mapped, manifest, seen):
                    self.tally.images += 1
                    self.tally.objects += len(mapped.objects or ())
                    yield mapped

    def _is_repeated(
        self, row: ManifestRow, manifest: Manifest, seen: dict[object, tuple[str, int]]
    ) -> bool:
        place = (uris.strip_secrets(row.uri), row.member)
        digest = hash(row.objects)
        for key in (row.image_id, place):
            earlier = seen.get(key)
            if earlier is None:
                continue
            if self.repeated == "reject":
                raise InvalidConfiguration(self._describe_repeated(row, manifest, earlier, key))
            self.tally.repeated += 1
            self.tally.differing += earlier[1] != digest
            return True
        seen[row.image_id] = seen[place] = (manifest.uri, digest)
        return False

    def _describe_repeated(
        self, row: ManifestRow, manifest: Manifest, earlier: tuple[str, int], key: object
    ) -> str:
        where = f"{uris.redact_uri(earlier[0])} and {uris.redact_uri(manifest.uri)}"
        if key != row.image_id:
            return (
                f"image {row.image_id!r:.200} of {where} is one file under two image_ids: --repeated first "
                "keeps the first one"
            )
        return (
            f"image_id {row.image_id!r:.200} is in {where}: --prefix-ids keeps both, --repeated first "
            "keeps the first one"
        )

    def _map_row(
        self, row: ManifestRow, class_map: ClassMap, classes: Sequence[str]
    ) -> ManifestRow:
        objects = None
        if row.objects is not None:
            objects = tuple(
                replace(item, label=target)
                for item in row.objects
                if (target := class_map.get(item.label, item.label)) is not None
            )
            self.tally.left_out_objects += len(row.objects) - len(objects)
        if not self.contents.federated:
            return replace(row, objects=objects)
        negative = row.negative_labels
        if negative is None and row.objects is not None:  # annotated for all of its classes
            shown = {item.label for item in row.objects}
            negative = tuple(label for label in classes if label not in shown)
        return replace(
            row,
            objects=objects,
            negative_labels=_map_labels(negative, class_map),
            not_exhaustive_labels=_map_labels(row.not_exhaustive_labels, class_map),
        )


def _map_labels(labels: Sequence[str] | None, class_map: ClassMap) -> tuple[str, ...] | None:
    if labels is None:
        return None
    targets = (class_map.get(label, label) for label in labels)
    return tuple(dict.fromkeys(target for target in targets if target is not None))


def open_merge(
    manifests: Sequence[Manifest],
    maps: Sequence[ClassMap],
    *,
    repeated: Repeated = "reject",
    prefix_ids: bool = False,
    federated: bool = False,
) -> Merge:
    """Check manifests against each other.

    Args:
        manifests: two or more.
        maps: one for each manifest.
        repeated: what happens to images that several manifests have.
        prefix_ids: put the name of its manifest before each image_id.
        federated: record which classes each image is annotated for.

    Raises:
        InvalidConfiguration: manifests are decoded differently, or what `merge_classes` raises.
    """
    names = [uris.redact_uri(manifest.uri) for manifest in manifests]
    for name, manifest in zip(names, manifests, strict=True):
        if manifest.decoding != manifests[0].decoding:
            raise InvalidConfiguration(
                f"{names[0]} was prepared with --exif {manifests[0].exif} --truncated "
                f"{manifests[0].truncated}, {name} with --exif {manifest.exif} --truncated "
                f"{manifest.truncated}: prepare both alike"
            )
    classes = [_list_classes(manifest) for manifest in manifests]
    is_annotated = [bool(of_manifest) for of_manifest in classes]
    merged = merge_classes(names, classes, maps) if any(is_annotated) else None
    is_federated = federated or any(manifest.is_federated for manifest in manifests)
    category_ids = _merge_category_ids(manifests, maps, merged)
    contents = ManifestContents(
        merged,
        category_ids,
        manifests[0].decoding,
        is_federated and merged is not None,
        any(manifest.has_members for manifest in manifests),
    )
    notes = _list_notes(names, classes, maps, contents)
    if category_ids is None and any(manifest.category_ids for manifest in manifests):
        notes.append("the manifests give classes different COCO ids, so the merged one has none")
    prefixes = [f"{prefix}/" for prefix in _list_prefixes(manifests)]
    return Merge(
        manifests,
        maps,
        contents,
        classes,
        repeated,
        prefixes if prefix_ids else [""] * len(manifests),
        tuple(notes),
    )


def _list_classes(manifest: Manifest) -> tuple[str, ...]:
    try:
        return list_annotated_classes(manifest, manifest.rows)
    except NotAnnotated:
        return ()


def _list_prefixes(manifests: Sequence[Manifest]) -> list[str]:
    names = [manifest.uri.rstrip("/").rpartition("/")[2] for manifest in manifests]
    names = [name.removesuffix(".parquet") for name in names]
    if len(set(names)) < len(names):
        return [f"{name}-{number}" for number, name in enumerate(names)]
    return names


def _merge_category_ids(
    manifests: Sequence[Manifest], maps: Sequence[ClassMap], merged: Sequence[str] | None
) -> list[int] | None:
    """COCO's ids, if every class has one and they do not contradict each other."""
    ids: dict[str, int] = {}
    for manifest, class_map in zip(manifests, maps, strict=True):
        for label, number in zip(manifest.classes or (), manifest.category_ids or (), strict=False):
            target = class_map.get(label, label)
            if target is not None and ids.setdefault(target, number) != number:
                return None
    chosen = [ids.get(label) for label in merged or ()]
    numbers = [number for number in chosen if number is not None]
    is_complete = bool(numbers) and len(set(numbers)) == len(chosen)
    return numbers if is_complete else None


def _list_notes(
    names: Sequence[str],
    classes: Sequence[Sequence[str]],
    maps: Sequence[ClassMap],
    contents: ManifestContents,
) -> list[str]:
    """What a reader of the merged manifest must know."""
    notes = []
    for name, of_manifest, class_map in zip(names, classes, maps, strict=True):
        own = {class_map.get(label, label) for label in of_manifest}
        missing = [label for label in contents.classes or () if label not in own]
        shown = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        if not of_manifest and contents.classes:
            notes.append(f"{name} has no annotated objects: its images stay without annotations")
        elif missing and not contents.federated:
            notes.append(
                f"{name} is not annotated for {shown}: a detector would learn such objects in its images as "
                "background (--federated records which classes each image is annotated for)"
            )
    return notes


def _read_rows(manifest: Manifest) -> Iterator[ManifestRow]:
    columns = [*manifest.image_columns, "objects"]
    if manifest.is_federated:
        columns += ["negative_labels", "not_exhaustive_labels"]
    for first in range(0, manifest.rows, ROW_GROUP):
        table = manifest.read(first, ROW_GROUP, columns)
        members = read_members(table, manifest.uri, first)
        for values, member in zip(table.to_pylist(), members, strict=True):
            objects = values["objects"]
            yield ManifestRow(
                values["image_id"],
                values["uri"],
                values["width"],
                values["height"],
                None if objects is None else tuple(_read_object(item) for item in objects),
                _read_labels(values.get("negative_labels")),
                _read_labels(values.get("not_exhaustive_labels")),
                member,
            )


def _read_labels(labels: list[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)


def _read_object(item: dict[str, object]) -> AnnotatedObject:
    flags = {name: bool(item[name]) for name in ("difficult", "crowd")}
    return AnnotatedObject(**{**item, **flags})  # type: ignore[arg-type]
