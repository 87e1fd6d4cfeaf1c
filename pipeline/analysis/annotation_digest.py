"""A digest of a manifest's annotations: a rerun over changed annotations must not keep earlier matches."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.manifest_join import list_federated_columns
from pipeline.manifests import ROW_GROUP, Manifest
from pipeline.schema import OBJECT


def digest_annotations(manifest: Manifest, images: int, classes: tuple[str, ...]) -> str:
    """Digest the objects of the first images, their federated classes, and the order of the classes.

    The digest does not depend on how the manifest is stored: on its files, row groups or types.

    Raises:
        UnreadableDataset: the manifest cannot be read, or a box is wrong.
    """
    federated = list_federated_columns(manifest)
    names = ("count", *(field.name for field in OBJECT), *federated)
    columns = {name: hashlib.sha256() for name in names}
    for first in range(0, images, ROW_GROUP):
        table = manifest.read(first, min(ROW_GROUP, images - first), ["objects", *federated])
        objects = table.column("objects").combine_chunks()
        columns["count"].update(_encode_counts(objects))
        for name in federated:
            lists = table.column(name).combine_chunks()
            columns[name].update(_encode_counts(lists) + _encode_labels(lists.flatten()))
        structs = objects.flatten()
        for field in OBJECT:
            values = structs.field(field.name)
            if field.name == "label":
                columns["label"].update(_encode_labels(values))
            else:
                flags = (
                    pc.fill_null(values, False) if field.name in ("difficult", "crowd") else values
                )
                columns[field.name].update(flags.to_numpy(zero_copy_only=False).tobytes())
    whole = hashlib.sha256(json.dumps(classes).encode())
    for name in sorted(columns):
        whole.update(columns[name].digest())
    return whole.hexdigest()


def _encode_counts(lists: pa.ListArray) -> bytes:
    counts = pc.fill_null(pc.list_value_length(lists), -1)
    encoded: bytes = counts.to_numpy(zero_copy_only=False).astype("<i4").tobytes()
    return encoded


def _encode_labels(values: pa.StringArray) -> bytes:
    labels = values.dictionary_encode()
    names = [hashlib.sha256(name.encode()).digest() for name in labels.dictionary.to_pylist()]
    codes = np.frombuffer(b"".join(names), np.uint64).reshape(-1, 4)[:, 0]
    encoded: bytes = codes[labels.indices.to_numpy()].tobytes()
    return encoded
