"""Fixtures of the tests of cluster/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.resource_schema import ResourceDefinition

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def definitions() -> dict[str, ResourceDefinition]:
    """KubeRay's definitions by kind; skips the test if they are missing."""
    shared = Path(os.environ.get("PIPELINE_DEV_DATA", ROOT.parent / "shared"))
    files = [shared / "kuberay-crds" / f"ray.io_{name}.yaml" for name in ("rayjobs", "rayclusters")]
    if not all(path.is_file() for path in files):
        pytest.skip(f"no definitions of KubeRay at {files[0].parent}; set PIPELINE_DEV_DATA")
    read = [ResourceDefinition(path) for path in files]
    return {definition.kind: definition for definition in read}
