"""The folder and the token of a Ray of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engine import local_ray
from pipeline.errors import InvalidConfiguration


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", *local_ray.TOKEN_PLACES):
        monkeypatch.delenv(name, raising=False)


def test_ray_chooses_a_folder_that_works() -> None:
    with local_ray.prepare_session_folder() as folder:
        assert folder is None


@pytest.mark.parametrize("is_long", [True, False])
def test_a_long_or_unwritable_tmpdir_gives_way_to_a_short_private_folder(
    is_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 60)) if is_long else "/proc/none")
    with local_ray.prepare_session_folder() as folder:
        assert folder is not None
        assert len(folder) <= local_ray.LONGEST_FOLDER
        assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert not Path(folder).exists()
    reason = "is too long for Ray's sockets" if is_long else "cannot be written"
    assert reason in caplog.text


def test_a_long_ray_tmpdir_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 60)
    with (
        pytest.raises(InvalidConfiguration, match=r"RAY_TMPDIR .* is too long .* at most 38 bytes"),
        local_ray.prepare_session_folder(),
    ):
        pass


def test_without_a_short_folder_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 60)))
    monkeypatch.setattr(local_ray, "SHORT_FOLDER", tmp_path / "missing")
    with (
        pytest.raises(InvalidConfiguration, match="set RAY_TMPDIR to a writable folder"),
        local_ray.prepare_session_folder(),
    ):
        pass


def test_a_token_comes_from_the_environment_if_home_cannot_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    with local_ray.provide_token():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_ray_keeps_its_token_in_a_home_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with local_ray.provide_token():
        assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_chosen_mode_or_token_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with local_ray.provide_token():
        assert "RAY_AUTH_TOKEN" not in os.environ
