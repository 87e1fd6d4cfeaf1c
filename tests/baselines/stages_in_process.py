"""A small training of R-CNN or SPPnet on drawn images, stage by stage in this process, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import safetensors.torch

from pipeline import shards, uris
from pipeline.baselines.settings import BaselineSettings, System
from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.detector.preprocessing import FROM_SCRATCH
from pipeline.engine.baselines.extraction import Content, ExtractionPlan, extract_piece
from pipeline.engine.baselines.extraction_run import describe_extraction
from pipeline.engine.baselines.fine_tuning_stage import run_fine_tuning
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import compute_network_digest
from pipeline.engine.baselines.svm_stage import run_box_regression, run_svm_training
from pipeline.engine.shards.piece import Piece
from pipeline.run_record import RunRecord
from pipeline.runs.report import Report
from pipeline.shards import Parts, put_part, write_shard_table
from pipeline.training.recipes import RECIPES
from tests.training.training_dataset import open_drawn_datasets

SETTINGS = BaselineSettings(
    window_size=48,
    window_context=3,
    pyramid=(3, 1),
    scales=(96, 160),
    scale_cap=320,
    fine_tune_steps=30,
    windows_per_step=32,
    images_per_part=3,
)


def build_plan(
    folder: Path, system: System, images: int = 6, settings: BaselineSettings = SETTINGS
) -> BaselinePlan:
    """A training on drawn images with jittered proposals; SPPnet starts from a file of random weights."""
    datasets, _ = open_drawn_datasets(folder / "data", images=images)
    recipe = replace(RECIPES["tiny"](), precision="fp32", max_proposals=60)
    architecture = Architecture(
        datasets[0].classes, "tiny", freeze_until="none", fc_widths=(32, 32)
    )
    weights = None
    if system == "sppnet":
        network = build_network(replace(architecture, fc_widths=None))
        weights = str(folder / "weights.safetensors")
        state = network.backbone.state_dict()
        trunk = {n: t.contiguous() for n, t in state.items() if not n.startswith("fc.")}
        safetensors.torch.save_file(trunk, weights)
    return BaselinePlan(
        system,
        str(folder / "output"),
        datasets[0],
        recipe,
        settings,
        architecture,
        FROM_SCRATCH,
        weights,
        0,
    )


def extract(plan: BaselinePlan, content: Content, maps: Parts | None = None) -> Parts:
    """Extract features or maps shard by shard."""
    output = uris.join(plan.output, content)
    cut = shards.cut_manifest(plan.dataset.manifest, plan.settings.images_per_part)
    digest = compute_network_digest(plan, content)
    record = RunRecord(content, describe_extraction(plan, cut.dataset, digest))
    planned = cut.build_shards(record.fingerprint)
    record.write(output)
    write_shard_table(output, planned)
    run = ExtractionPlan(plan, content, output, record.fingerprint, digest, maps)
    for shard in planned:
        put_part(output, shard, extract_piece(run, Piece(shard), Report(), last_chance=True))
    return Parts(output, tuple(planned), record.fingerprint)


def train(plan: BaselinePlan) -> dict[str, object]:
    """All stages; returns the figures of each."""
    figures: dict[str, object] = {}
    maps = None
    if plan.system == "sppnet":
        maps = extract(plan, "maps")
    if plan.system != "fast-rcnn-svm":
        figures["fine-tune"] = run_fine_tuning(plan, maps)
    features = extract(plan, "features", maps)
    figures["svm"] = run_svm_training(plan, features)
    figures["boxes"] = run_box_regression(plan, features)
    return figures
