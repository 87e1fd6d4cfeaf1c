"""The compress job: exact at full rank, figures worked by hand, errors in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint import load_checkpoint, save_checkpoint
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.network import build_network
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor
from pipeline.detector.timing import LAYERS
from pipeline.engine.train.validation import Validation
from pipeline.sources.drawn_dataset import CLASSES
from tests.detector.networks import (
    SMALL,
    build_random_network,
    draw_random_boxes,
    draw_random_image,
)
from tests.jobs.command import read_error_output, run_job
from tests.training.training_dataset import write_dataset

QUICK = ("--repeats", "0")


def save_network(folder: Path, model: torch.nn.Module) -> str:
    uri = str(folder / "whole")
    save_checkpoint(uri, model, SMALL, extra={"step": 7})
    return uri


def compress(source: str, target: Path | str, *more: str) -> int:
    return run_job("compress", "--checkpoint", source, "--output", str(target), *more)


def assert_same_detections(first: str, second: str) -> None:
    rng = np.random.default_rng(0)
    image, boxes = draw_random_image(rng, 60, 80), draw_random_boxes(rng, 40, 60, 80)
    postprocessing = PostprocessingSettings(score_threshold=0.1)
    before, after = (
        Predictor(uri, precision="fp32", postprocessing=postprocessing)([image], [boxes])[0]
        for uri in (first, second)
    )
    assert len(before.scores) > 5
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-4)
    np.testing.assert_allclose(after.boxes, before.boxes, atol=0.05)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_full_rank_gives_the_same_detections(tmp_path: Path) -> None:
    source = save_network(tmp_path, build_random_network())
    assert compress(source, tmp_path / "out", "--fc6", "128", "--fc7", "128", *QUICK) == 0
    assert_same_detections(source, str(tmp_path / "out"))
    record = read_checkpoint_record(str(tmp_path / "out"))
    assert record.architecture.fc_ranks == (128, 128)
    assert record.digest != read_checkpoint_record(source).digest
    assert record.extra["step"] == 7
    assert record.extra["compressed"]["checkpoint"] == read_checkpoint_record(source).digest


def test_layers_of_low_rank_are_compressed_exactly(tmp_path: Path) -> None:
    model = build_random_network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer, rank in ((model.backbone.fc[1], 9), (model.backbone.fc[4], 5)):
            factors = [
                torch.randn(size, generator=generator)
                for size in ((layer.out_features, rank), (rank, layer.in_features))
            ]
            product = factors[0] @ factors[1]
            layer.weight.copy_(product * (layer.weight.std() / product.std()))
    source = save_network(tmp_path, model)
    assert compress(source, tmp_path / "out", "--fc6", "9", "--fc7", "5", *QUICK) == 0
    assert_same_detections(source, str(tmp_path / "out"))


def test_the_figures_match_values_worked_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_network(tmp_path, build_random_network())
    arguments = ("--fc6", "16", "--fc7", "8", "--rois", "10", "--repeats", "1")
    assert compress(source, tmp_path / "out", *arguments) == 0
    printed = capsys.readouterr().out
    # Three blocks of two convolutions, 3 x 3 without a bias, each with two numbers per channel of norm.
    blocks = [(3, 16), (16, 32), (32, 64)]
    trunk = sum(9 * i * o + 9 * o * o + 4 * o for i, o in blocks)
    outputs = (128 + 1) * 4 + (128 + 1) * 16  # 3 classes and background
    whole = trunk + (1600 + 1) * 128 + (128 + 1) * 128 + outputs
    small = trunk + 16 * (1600 + 128) + 128 + 8 * (128 + 128) + 128 + outputs
    assert read_numbers(printed, "parameters") == [whole, small]
    assert (whole, small) == (296324, 104836)
    before = 1600 * 128 + 128 * 128 + 128 * 20
    after = 16 * (1600 + 128) + 8 * (128 + 128) + 128 * 20
    assert read_numbers(printed, "multiply-adds per RoI") == [before, after]
    # 64 x 85 pixels, halved three times, rounded up.
    sizes = [(32, 43), (16, 22), (8, 11)]
    over_image = sum(
        9 * (i * o + o * o) * h * w for (i, o), (h, w) in zip(blocks, sizes, strict=True)
    )
    assert read_numbers(printed, "multiply-adds per image") == [
        over_image + 10 * before,
        over_image + 10 * after,
    ]
    assert "an image of 64 x 85 pixels, 10 RoIs" in printed
    assert re.search(r"seconds per image +│ +\d+\.\d{3} +│ +\d+\.\d{3} ", printed)
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert stored["shape"] == [64, 85]
    figures = stored["figures"]
    assert figures["parameters"] == {"before": whole, "after": small}
    for network in ("before", "after"):
        layers = [figures[name][network] for name in LAYERS]
        assert min(layers) > 0
        assert sum(layers) == pytest.approx(figures["seconds per image"][network], rel=1e-6)


def read_numbers(printed: str, name: str) -> list[int]:
    """Before and after in the row with this name."""
    (line,) = [line for line in printed.splitlines() if f" {name} " in line]
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    return [int(cell.replace(",", "")) for cell in cells[1:3]]


def test_both_networks_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "data", images=4)
    model = build_random_network(classes=CLASSES)
    source = save_network(tmp_path, model)
    data = ("--manifest", manifest, "--proposals", proposals, *QUICK)
    assert compress(source, tmp_path / "out", "--fc6", "128", "--fc7", "128", *data) == 0
    validator = Validation(manifest, proposals).open_validator(CLASSES)
    assert validator is not None
    expected = validator(model, SMALL)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "mAP" in line]
    assert line.count(f"{expected:.4f}") == 2


def test_a_rerun_gives_the_same_checkpoint_and_other_ranks_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = save_network(tmp_path, build_random_network()), tmp_path / "out"
    ranks = ("--fc6", "16", "--fc7", "8")
    assert compress(source, out, *ranks, *QUICK) == 0
    before = (out / "model.safetensors").read_bytes()
    assert compress(source, out, *ranks, *QUICK) == 0
    assert (out / "model.safetensors").read_bytes() == before
    capsys.readouterr()
    assert compress(source, out, "--fc6", "16", "--fc7", "9", *QUICK) == 2
    error = read_error_output(capsys)
    assert "was written by a run with other settings (fc7: 8 there, 9 now): choose another" in error
    assert compress(source, out, "--fc6", "16", "--fc7", "9", "--overwrite", *QUICK) == 0
    assert read_checkpoint_record(str(out)).architecture.fc_ranks == (16, 9)


def test_compression_works_on_another_store(tmp_path: Path) -> None:
    source = save_network(tmp_path, build_random_network())
    target = f"memory://{tmp_path.name}/small"
    assert compress(source, target, "--fc6", "16", "--fc7", "8", *QUICK) == 0
    assert load_checkpoint(target).network.architecture.fc_ranks == (16, 8)


ERRORS = {
    "--checkpoint {w}/none": "{w}/none is no checkpoint: {w}/none/model.json does not exist",
    "--checkpoint nostore://x": "nostore://x",
    "--checkpoint {w}/convolutional": "expected 2 fully connected layers in the head, found 0",
    "--checkpoint {w}/compressed": "{w}/compressed is compressed already, to ranks (16, 8)",
    "--fc6 129": "rank 129 of fc6, which is 128 x 1600: expected 1 to 128",
    "--fc7 500": "rank 500 of fc7, which is 128 x 128: expected 1 to 128",
    "--fc7 0": "--fc7 is 0, expected at least 1",
    "--rois 0": "--rois is 0, expected at least 1",
    "--output {w}/whole": "--output {w}/whole is the --checkpoint: choose another folder",
    "--output {w}/whole --overwrite": "--output {w}/whole is the --checkpoint",
    "--output {w}/convolutional": "settings (job: train there, compress now): choose another --output",
    "--output {w}/other": "{w}/other holds other files than a compressed checkpoint (run.json)",
    "--output {w}/other --overwrite": "{w}/other holds other files",
    "--output {w}/other/run.json/out": "{w}/other/run.json/out cannot be listed: Not a directory",
    "--output nostore://x": "nostore://x cannot be opened",
    "--manifest {w}/m.parquet": "--manifest and --proposals must be passed together",
    "--manifest {w}/m.parquet --proposals {w}/none": "{w}/m.parquet does not exist",
    "--manifest {w}/data/manifest.parquet --proposals {w}/data/proposals": (
        "{w}/data/manifest.parquet has other classes than the network"
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    source = save_network(root, build_random_network())
    assert compress(source, root / "compressed", "--fc6", "16", "--fc7", "8", *QUICK) == 0
    convolutional = build_network(Architecture(("cat",), "mobilenet_v2"))
    save_checkpoint(str(root / "convolutional"), convolutional, SMALL)
    (root / "other").mkdir()
    (root / "other" / "run.json").write_text(json.dumps({}))
    write_dataset(root / "data", images=2)
    return root


@pytest.mark.parametrize(("changed", "expected"), ERRORS.items(), ids=ERRORS)
def test_an_error_is_one_line_with_exit_code_2(
    changed: str, expected: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    words = changed.format(w=world).split()
    base = {"--checkpoint": f"{world}/whole", "--output": f"{world}/out"}
    base |= {"--fc6": "16", "--fc7": "8"}
    unchanged = [word for option in base if option not in words for word in (option, base[option])]
    assert run_job("compress", *unchanged, *words, *QUICK) == 2
    error = read_error_output(capsys)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected.format(w=world) in error
    assert not list((world / "out").glob("*"))
