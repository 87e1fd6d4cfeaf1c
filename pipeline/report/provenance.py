"""Where the numbers come from: settings, versions, commands and times of the runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage, uris
from pipeline.errors import PipelineError
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.run_record import RECORD_NAME

SUMMARY_NAME = "summary.json"
MODEL_NAME = "model.json"


@dataclass(frozen=True)
class StageTimes:
    """What a run took, from its summary.json."""

    job: str
    images: int
    failed: int
    seconds: float
    start_seconds: float
    images_per_second: float
    stage_seconds: Mapping[str, float]
    """Seconds of all workers together, by stage."""
    utilisation: Mapping[str, float]
    """Busy share of each stage's slots, 0 to 1."""


@dataclass(frozen=True)
class Provenance:
    """What is known of the runs; what cannot be read is left out."""

    facts: Mapping[str, str]
    """Names and values, such as `checkpoint`."""
    settings: Mapping[str, Any]
    """Of run.json of the detections."""
    versions: Mapping[str, str]
    commands: tuple[str, ...]
    """Command lines that would repeat the runs, without options that do not change the output."""
    times: tuple[StageTimes, ...] = field(default=())


def collect_provenance(detections: str, manifest: str) -> Provenance:
    """Read run.json and summary.json of the detections, of their proposals, and the checkpoint's model.json.

    Args:
        detections: an output of `detect`; any fsspec URI.
        manifest: the manifest that the detections were compared with.
    """
    record = _read_object(uris.join(detections, RECORD_NAME))
    inputs = _get_mapping(record, "inputs")
    settings = _get_mapping(record, "settings")
    checkpoint = _get_text(inputs, "checkpoint")
    proposals = _get_text(inputs, "proposals")
    model = _read_object(uris.join(checkpoint, MODEL_NAME)) if checkpoint else {}
    proposal_record = _read_object(uris.join(proposals, RECORD_NAME)) if proposals else {}
    places = {"detections": detections, "manifest": manifest}
    places |= {name: place for name, place in inputs.items() if isinstance(place, str)}
    facts = {name: uris.redact_uri(place) for name, place in places.items()}
    facts |= _describe_model(model) | _describe_settings(settings)
    times = [
        read_stage_times(job, place)
        for job, place in (("propose", proposals), ("detect", detections))
        if place
    ]
    return Provenance(
        facts=facts,
        settings=settings,
        versions={k: str(v) for k, v in _get_mapping(record, "versions").items()},
        commands=_list_commands(places, proposal_record),
        times=tuple(time for time in times if time is not None),
    )


def read_stage_times(job: str, output: str) -> StageTimes | None:
    """Read summary.json of an output; None if there is none that can be read."""
    summary = _read_object(uris.join(output, SUMMARY_NAME))
    if not summary:
        return None
    return StageTimes(
        job,
        int(_get_number(summary, "images")),
        int(_get_number(summary, "images_failed")),
        _get_number(summary, "seconds"),
        _get_number(summary, "start_seconds"),
        _get_number(summary, "images_per_second"),
        _get_numbers(summary, "stage_seconds"),
        _get_numbers(summary, "utilisation"),
    )


def _describe_model(model: Mapping[str, Any]) -> dict[str, str]:
    extra, architecture = _get_mapping(model, "extra"), _get_mapping(model, "architecture")
    recipe = _get_mapping(extra, "recipe")
    facts = {
        "backbone": _get_text(architecture, "backbone"),
        "recipe": _summarize(
            recipe, ("optimiser", "learning_rate", "epochs", "iterations", "images_per_step")
        ),
        "training steps": _get_text(extra, "steps"),
        "training seed": _get_text(extra, "seed"),
        "weights SHA-256": _get_text(_get_mapping(model, "weights"), "sha256"),
    }
    return {name: value for name, value in facts.items() if value}


def _describe_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    stored = _get_mapping(_get_mapping(settings, "proposals"), "stored")
    facts = {
        "dataset digest": _get_text(settings, "dataset"),
        "proposal settings": _summarize(
            stored or _get_mapping(settings, "proposals"),
            ("algorithm", "strategy", "max_boxes", "min_side", "seed", "version"),
        ),
        "detections kept": _summarize(
            _get_mapping(settings, "keep"), ("rule", "score_threshold", "nms_iou", "max_per_image")
        ),
        "precision": _get_text(settings, "precision"),
    }
    return {name: value for name, value in facts.items() if value}


def _list_commands(
    places: Mapping[str, str], proposal_record: Mapping[str, Any]
) -> tuple[str, ...]:
    """The commands of the runs with their main options."""
    commands = []
    proposal_manifest = _get_text(_get_mapping(proposal_record, "inputs"), "manifest")
    if "proposals" in places and proposal_manifest:
        commands.append(
            _write_command(
                "propose", {"manifest": proposal_manifest, "output": places["proposals"]}
            )
        )
    if "checkpoint" in places:
        names = ("manifest", "checkpoint", "proposals")
        options = {name: places[name] for name in names if name in places}
        commands.append(_write_command("detect", options | {"output": places["detections"]}))
    commands.append(
        _write_command(
            "analyze",
            {"detections": places["detections"], "manifest": places["manifest"]},
            "detections",
        )
    )
    return tuple(commands)


def _write_command(job: str, options: Mapping[str, str], *words: str) -> str:
    arguments = [f"jobs/{job}.py", *words]
    for name, value in options.items():
        arguments += [f"--{name}", uris.redact_uri(value)]
    return f"python {shlex.join(arguments)}"


def _summarize(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Some of the values in words; those that are absent or null are left out."""
    shown = {name: values.get(name) for name in names}
    return ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in shown.items() if value is not None
    )


def _read_object(uri: str) -> Mapping[str, Any]:
    """A JSON file's object; empty if it is missing or damaged, since a report does without it."""
    try:
        return parse_fields(storage.read(uri)).values
    except (PipelineError, InvalidJson):
        return {}


def _get_mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _get_text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return str(value) if isinstance(value, str | int | float) else ""


def _get_number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _get_numbers(values: Mapping[str, Any], name: str) -> dict[str, float]:
    return {
        str(key): float(value)
        for key, value in _get_mapping(values, name).items()
        if isinstance(value, int | float)
    }
