"""Fixtures that the tests of several stations share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.swift import s3_bucket, s3_folder, store_environment, swift_store  # noqa: F401

# The first example of a test may import or compile, and a busy machine is not a failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Tests run side by side on small machines: one thread each, set before numpy and torch load.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# By default Ray Train notices a worker's start or end only every 2 s, several times in each training.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# By default Ray adds 15 to its workers' niceness: they would hardly run beside the tests of another process.
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray logs the error of a reference that nobody holds any more, perhaps into the next test's log.
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")


SLOW_FOLDERS = ("chaos", "jobs", "engine", "cluster")
"""Folders of tests that start Ray."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first, so that the processes that share the files end at about the same time."""
    root = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(root).parts[0]
        return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The folder with real data; skips the test if it is missing."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("PIPELINE_DEV_DATA", root.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PIPELINE_DEV_DATA")
    return folder


@pytest.fixture(scope="session")
def ray_cluster(store_environment: dict[str, str]) -> Iterator[None]:  # noqa: F811
    """A local Ray of two cores, started once for all tests of this process that need one."""
    import ray

    from pipeline.engine.cluster import WORKER_ENVIRONMENT

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": WORKER_ENVIRONMENT | store_environment},
    )
    yield
    ray.shutdown()
