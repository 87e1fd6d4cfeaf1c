"""A digest of a manifest's annotations: a rerun over changed annotations must not keep earlier matches."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow.compute as pc

from pipeline.manifests import ROW_GROUP, Manifest
from pipeline.schema import OBJECT


def digest_annotations(manifest: Manifest, images: int, classes: tuple[str, ...]) -> str:
    """Digest the objects of the first images, and the order of the classes.

    The digest does not depend on how the manifest is stored: on its files, row groups or types.

    Raises:
        UnreadableDataset: the manifest cannot be read, or a box is wrong.
    """
    columns = {name: hashlib.sha256() for name in ("count", *(field.name for field in OBJECT))}
    for first in range(0, images, ROW_GROUP):
        table = manifest.read(first, min(ROW_GROUP, images - first), ["objects"])
        objects = table.column("objects").combine_chunks()
        counts = pc.fill_null(pc.list_value_length(objects), -1)
        columns["count"].update(counts.to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        structs = objects.flatten()
        for field in OBJECT:
            values = structs.field(field.name)
            if field.name == "label":
                labels = values.dictionary_encode()
                names = [
                    hashlib.sha256(name.encode()).digest() for name in labels.dictionary.to_pylist()
                ]
                codes = np.frombuffer(b"".join(names), np.uint64).reshape(-1, 4)[:, 0]
                columns["label"].update(codes[labels.indices.to_numpy()].tobytes())
            else:
                flags = (
                    pc.fill_null(values, False) if field.name in ("difficult", "crowd") else values
                )
                columns[field.name].update(flags.to_numpy(zero_copy_only=False).tobytes())
    whole = hashlib.sha256(json.dumps(classes).encode())
    for name in sorted(columns):
        whole.update(columns[name].digest())
    return whole.hexdigest()
