"""What this project logged during a test, without the messages of libraries."""

from __future__ import annotations

import pytest


def read_project_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of this project's loggers, in order.

    Libraries log whenever they like: Ray, for example, reports the failed tasks of an earlier test.
    """
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.partition(".")[0] in ("pipeline", "jobs")
    ]
