"""The compress job: exact where it must be, figures worked by hand, errors in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.detector import checkpoint
from pipeline.detector.checkpoint_record import peek
from pipeline.detector.network import Architecture, build
from pipeline.detector.predictor import Keep, Predictor
from pipeline.engine.train.validation import Validation
from pipeline.sources.drawn import CLASSES
from tests.detector.networks import SMALL, random_boxes, random_image, random_model
from tests.jobs.command import run_job
from tests.training.drawn import make_dataset

QUICK = ("--repeats", "0")


def saved(folder: Path, model: torch.nn.Module) -> str:
    place = str(folder / "whole")
    checkpoint.save(place, model, SMALL, extra={"step": 7})
    return place


def compress(source: str, target: Path | str, *more: str) -> int:
    return run_job("compress", "--checkpoint", source, "--output", str(target), *more)


def assert_same_detections(first: str, second: str) -> None:
    rng = np.random.default_rng(0)
    image, boxes = random_image(rng, 60, 80), random_boxes(rng, 40, 60, 80)
    keep = Keep(score_threshold=0.1)
    one, other = (
        Predictor(uri, precision="fp32", keep=keep)([image], [boxes])[0] for uri in (first, second)
    )
    assert len(one.scores) > 5
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
    np.testing.assert_allclose(other.boxes, one.boxes, atol=0.05)
    np.testing.assert_array_equal(other.labels, one.labels)


def test_full_rank_detects_the_same(tmp_path: Path) -> None:
    source = saved(tmp_path, random_model())
    assert compress(source, tmp_path / "out", "--fc6", "128", "--fc7", "128", *QUICK) == 0
    assert_same_detections(source, str(tmp_path / "out"))
    record = peek(str(tmp_path / "out"))
    assert record.architecture.fc_ranks == (128, 128)
    assert record.digest != peek(source).digest
    assert record.extra["step"] == 7
    assert record.extra["compressed"]["checkpoint"] == peek(source).digest


def test_layers_of_low_rank_are_exact(tmp_path: Path) -> None:
    model = random_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer, rank in ((model.backbone.fc[1], 9), (model.backbone.fc[4], 5)):
            factors = [
                torch.randn(size, generator=generator)
                for size in ((layer.out_features, rank), (rank, layer.in_features))
            ]
            product = factors[0] @ factors[1]
            layer.weight.copy_(product * (layer.weight.std() / product.std()))
    source = saved(tmp_path, model)
    assert compress(source, tmp_path / "out", "--fc6", "9", "--fc7", "5", *QUICK) == 0
    assert_same_detections(source, str(tmp_path / "out"))


def test_the_figures_are_those_worked_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path, random_model())
    arguments = ("--fc6", "16", "--fc7", "8", "--rois", "10", "--repeats", "1")
    assert compress(source, tmp_path / "out", *arguments) == 0
    printed = capsys.readouterr().out
    # Three blocks of two convolutions, 3 x 3 without a bias, each with two numbers per channel of norm.
    blocks = [(3, 16), (16, 32), (32, 64)]
    trunk = sum(9 * i * o + 9 * o * o + 4 * o for i, o in blocks)
    outputs = (128 + 1) * 4 + (128 + 1) * 16  # 3 classes and background
    whole = trunk + (1600 + 1) * 128 + (128 + 1) * 128 + outputs
    small = trunk + 16 * (1600 + 128) + 128 + 8 * (128 + 128) + 128 + outputs
    assert numbers(printed, "parameters") == [whole, small]
    assert (whole, small) == (296324, 104836)
    before = 1600 * 128 + 128 * 128 + 128 * 20
    after = 16 * (1600 + 128) + 8 * (128 + 128) + 128 * 20
    assert numbers(printed, "multiply-adds per RoI") == [before, after]
    # 64 x 85 pixels, halved three times, rounded up.
    sizes = [(32, 43), (16, 22), (8, 11)]
    over_image = sum(
        9 * (i * o + o * o) * h * w for (i, o), (h, w) in zip(blocks, sizes, strict=True)
    )
    assert numbers(printed, "multiply-adds per image") == [
        over_image + 10 * before,
        over_image + 10 * after,
    ]
    assert "an image of 64 x 85 pixels, 10 RoIs" in printed
    assert re.search(r"seconds per image +│ +0\.\d{3} +│ +0\.\d{3} ", printed)


def numbers(printed: str, name: str) -> list[int]:
    """Before and after in the row of that name."""
    (line,) = [line for line in printed.splitlines() if f" {name} " in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    return [int(cell.replace(",", "")) for cell in cells[1:3]]


def test_scores_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, proposals, _ = make_dataset(tmp_path / "data", images=4)
    model = random_model(classes=CLASSES)
    source = saved(tmp_path, model)
    given = ("--manifest", manifest, "--proposals", proposals, *QUICK)
    assert compress(source, tmp_path / "out", "--fc6", "128", "--fc7", "128", *given) == 0
    validator = Validation(manifest, proposals).validator(CLASSES)
    assert validator is not None
    expected = validator(model, SMALL)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "mAP" in line]
    assert line.count(f"{expected:.4f}") == 2


def test_again_is_the_same_and_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = saved(tmp_path, random_model()), tmp_path / "out"
    ranks = ("--fc6", "16", "--fc7", "8")
    assert compress(source, out, *ranks, *QUICK) == 0
    before = (out / "model.safetensors").read_bytes()
    assert compress(source, out, *ranks, *QUICK) == 0
    assert (out / "model.safetensors").read_bytes() == before
    capsys.readouterr()
    assert compress(source, out, "--fc6", "16", "--fc7", "9", *QUICK) == 2
    assert "holds another checkpoint: choose another --output" in capsys.readouterr().err
    assert compress(source, out, "--fc6", "16", "--fc7", "9", "--overwrite", *QUICK) == 0
    assert peek(str(out)).architecture.fc_ranks == (16, 9)


def test_on_another_store(tmp_path: Path) -> None:
    source = saved(tmp_path, random_model())
    target = f"memory://{tmp_path.name}/small"
    assert compress(source, target, "--fc6", "16", "--fc7", "8", *QUICK) == 0
    assert checkpoint.load(target).model.architecture.fc_ranks == (16, 8)


ERRORS = {
    "--checkpoint {w}/none": "{w}/none is no checkpoint: {w}/none/model.json does not exist",
    "--checkpoint nostore://x": "nostore://x",
    "--checkpoint {w}/convolutional": "the head has 0 fully connected layers",
    "--checkpoint {w}/compressed": "{w}/compressed is compressed already, to ranks (16, 8)",
    "--fc6 129": "rank 129 of fc6, which is 128 x 1600: expected 1 to 128",
    "--fc7 500": "rank 500 of fc7, which is 128 x 128: expected 1 to 128",
    "--fc7 0": "--fc7 is 0, expected at least 1",
    "--rois 0": "--rois is 0, expected at least 1",
    "--output {w}/whole": "{w}/whole is the checkpoint itself",
    "--output {w}/whole --overwrite": "{w}/whole is the checkpoint itself",
    "--output {w}/convolutional": "{w}/convolutional holds another checkpoint",
    "--output {w}/other": "{w}/other holds something else than a compressed checkpoint (run.json)",
    "--output {w}/other --overwrite": "{w}/other holds something else",
    "--output {w}/other/run.json/out": "{w}/other/run.json/out cannot be listed: Not a directory",
    "--output nostore://x": "nostore://x cannot be opened",
    "--manifest {w}/m.parquet": "--manifest and --proposals are given together",
    "--manifest {w}/m.parquet --proposals {w}/none": "{w}/m.parquet does not exist",
    "--manifest {w}/data/manifest.parquet --proposals {w}/data/proposals": (
        "{w}/data/manifest.parquet has other classes than the network"
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    source = saved(root, random_model())
    assert compress(source, root / "compressed", "--fc6", "16", "--fc7", "8", *QUICK) == 0
    convolutional = build(Architecture(("cat",), "mobilenet_v2"))
    checkpoint.save(str(root / "convolutional"), convolutional, SMALL)
    (root / "other").mkdir()
    (root / "other" / "run.json").write_text(json.dumps({}))
    make_dataset(root / "data", images=2)
    return root


@pytest.mark.parametrize(("changed", "told"), ERRORS.items(), ids=ERRORS)
def test_one_line_and_code_2(
    changed: str, told: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    words = changed.format(w=world).split()
    base = {"--checkpoint": f"{world}/whole", "--output": f"{world}/out"}
    base |= {"--fc6": "16", "--fc7": "8"}
    given = [word for option in base if option not in words for word in (option, base[option])]
    assert run_job("compress", *given, *words, *QUICK) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told.format(w=world) in error
    assert not list((world / "out").glob("*"))
