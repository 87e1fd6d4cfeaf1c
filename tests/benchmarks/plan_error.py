"""How far plans are off: `--plan` of a job, then the job, on several datasets and with two settings each.

python -m tests.benchmarks.plan_error --voc VOCdevkit --bccd BCCD --folder plan-errors --json result.json

Datasets: VOC 2007 (a split), BCCD, and drawn images, a tenth of which is four times as wide and high, so
that few images decide the cost. The jobs propose with the strategies `single` and `fast`, detect with two
networks that have random weights, and train by two recipes for some steps. Plans and jobs are processes of
their own, started by the command lines that a user types; the table comes from `plan.json` and from what the
job put into `summary.json`.

The CPU time hardly depends on what else the machine does, but wall times do, and plans assume that cores are
free. So the table also has the workers' share of all CPU time that the machine spent during the job.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import storage, uris
from pipeline.manifests import open_manifest
from pipeline.sources.drawn_dataset import draw_dataset

ROOT = Path(__file__).parents[2]
LARGE_EVERY = 10
"""One drawn image of so many is enlarged."""
ENLARGED = 4
_NUMBER = re.compile(r"<(?P<tag>xmin|ymin|xmax|ymax|width|height)>(?P<value>\d+)<")
NETWORKS = ("tiny", "mobilenet_v2")
"""Recipes of the networks that detect, and that are trained."""
STRATEGIES = ("single", "fast")
ATTEMPTS = 3
"""Starts of a job on a machine that is too busy to start Ray in time."""
FIGURES = ("core_hours", "wall_seconds", "bytes_read", "bytes_written")


@dataclass(frozen=True)
class Case:
    """A job with its settings on a dataset."""

    dataset: str
    job: str
    setting: str
    arguments: tuple[str, ...]
    plan_arguments: tuple[str, ...]


def main() -> None:
    """Plan and run each case, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voc", help="folder VOCdevkit")
    parser.add_argument("--split", default="devval", help="split of VOC 2007")
    parser.add_argument("--bccd", help="folder of BCCD, in VOC layout")
    parser.add_argument("--drawn", type=int, default=1000, help="number of drawn images")
    parser.add_argument("--plan-images", type=int, default=64, help="images that a plan measures")
    parser.add_argument("--detect-limit", type=int, default=200, help="images to detect in")
    parser.add_argument("--steps", type=int, default=100, help="steps of a training")
    parser.add_argument("--jobs", nargs="+", default=["propose", "detect", "train"])
    parser.add_argument("--folder", required=True, help="folder for data and outputs")
    parser.add_argument(
        "--only-plan", action="store_true", help="write the plans; a later call runs the jobs"
    )
    parser.add_argument("--json", help="output file for the figures")
    options = parser.parse_args()
    folder = Path(options.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for case in _list_cases(options, folder):
        output = _plan(case, folder)
        if options.only_plan:
            continue
        results.append(_run(case, output))
        print(_format_row(results[-1]), flush=True)
    print("\n".join(format_table(results)))
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(results, indent=2).encode())


def _list_cases(options: argparse.Namespace, folder: Path) -> Iterator[Case]:
    manifests = dict(_prepare_datasets(options, folder))
    for job in options.jobs:
        for name, manifest in manifests.items():
            for setting, arguments in _list_settings(job, name, manifest, folder, options):
                sample = ("--plan-images", str(options.plan_images))
                yield Case(name, job, setting, ("--manifest", manifest, *arguments), sample)


def _list_settings(
    job: str, name: str, manifest: str, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The settings of a job on a dataset, with their arguments."""
    if job == "propose":
        for strategy in STRATEGIES:
            yield strategy, ("--strategy", strategy)
        return
    stored = ("--proposals", _store_proposals(name, manifest, folder))
    for network in NETWORKS:
        if job == "train":
            steps = ("--iterations", str(options.steps))
            yield network, (*stored, "--recipe", network, *steps)
            continue
        checkpoint = _save_checkpoint(folder, network, manifest, name)
        few = ("--limit", str(min(open_manifest(manifest).rows, options.detect_limit)))
        # One network with stored proposals; for the other, the job computes them.
        source = stored if network == NETWORKS[0] else ()
        yield network, ("--checkpoint", checkpoint, *few, *source)


def _store_proposals(name: str, manifest: str, folder: Path) -> str:
    """Proposals of a dataset: those of the planned job, or new ones if it is not among the jobs."""
    planned = folder / f"{name}-propose-single"
    if (planned / "summary.json").exists():
        return str(planned)
    stored = str(folder / f"{name}-proposals")
    arguments = ("--manifest", manifest, "--strategy", "single", "--max-failed-fraction", "1")
    _run_job("propose", *arguments, "--output", stored)
    return stored


def _prepare_datasets(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """Names and manifests of the datasets."""
    roots = {}
    if options.voc:
        roots["voc"] = ("--root", options.voc, "--year", "2007", "--split", options.split)
    if options.bccd:
        roots["bccd"] = ("--root", options.bccd, "--split", "train")
    if options.drawn:
        drawn = folder / "drawn"
        if not drawn.is_dir():
            begun = folder / "drawn-begun"
            shutil.rmtree(begun, ignore_errors=True)
            draw_dataset(begun, options.drawn, 1)
            _enlarge_some(begun)
            begun.rename(drawn)
        roots["drawn"] = ("--root", str(drawn), "--split", "train")
    for name, arguments in roots.items():
        manifest = str(folder / f"{name}.parquet")
        _run_job("prepare", "voc", *arguments, "--output", manifest)
        yield name, manifest


def _enlarge_some(root: Path) -> None:
    """Enlarge a part of the drawn images, with their boxes; the same ones each time."""
    for number, path in enumerate(sorted((root / "JPEGImages").glob("*.jpg"))):
        if number % LARGE_EVERY:
            continue
        with Image.open(path) as image:
            size = (image.width * ENLARGED, image.height * ENLARGED)
            image.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        annotation = root / "Annotations" / f"{path.stem}.xml"
        annotation.write_text(_NUMBER.sub(_enlarge, annotation.read_text()))


def _enlarge(match: re.Match[str]) -> str:
    """A corner or size of the annotation, times `ENLARGED`; corners count from 1 and are inclusive."""
    value = int(match["value"])
    is_first = match["tag"] in ("xmin", "ymin")
    return f"<{match['tag']}>{(value - is_first) * ENLARGED + is_first}<"


def _save_checkpoint(folder: Path, recipe: str, manifest: str, dataset: str) -> str:
    from pipeline.detector.checkpoint import save_checkpoint
    from tests.benchmarks.predictor import build_untrained_network

    target = str(folder / f"{dataset}-{recipe}-checkpoint")
    random = build_untrained_network(recipe, tuple(open_manifest(manifest).classes or ("object",)))
    save_checkpoint(target, random.network, random.preprocessing)
    return target


def _plan(case: Case, folder: Path) -> str:
    """Plan a case, unless it is planned; returns its output."""
    output = str(folder / f"{case.dataset}-{case.job}-{case.setting}")
    if not Path(output, "plan.json").exists():
        arguments = (*case.arguments, *case.plan_arguments)
        _run_job(case.job, *arguments, "--output", output, "--plan")
    return output


def _run(case: Case, output: str) -> dict[str, Any]:
    """Run a case and compare it with its plan."""
    used = _read_machine_cpu()
    extra = () if case.job == "train" else ("--max-failed-fraction", "1")
    _run_job(case.job, *case.arguments, "--output", output, *extra)
    used = _read_machine_cpu() - used
    plan = json.loads(Path(output, "plan.json").read_bytes())
    summary = json.loads(Path(output, "summary.json").read_bytes())
    return {
        "dataset": case.dataset,
        "job": case.job,
        "setting": case.setting,
        "images": plan["images"],
        "sampled": plan["sampled"],
        "workers_share": sum(summary["cpu_seconds"].values()) / used,
        "figures": {
            name: summary["plan"][name] | plan["figures"][name]
            for name in FIGURES
            if name in summary["plan"]
        },
    }


def _read_machine_cpu() -> float:
    """CPU seconds that all processes of the machine have used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    busy = [int(value) for index, value in enumerate(fields[:8]) if index not in (3, 4)]
    return float(np.sum(busy)) / os.sysconf("SC_CLK_TCK")


def _run_job(job: str, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if "Ray does not start" not in done.stderr:
            break
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def format_table(results: list[dict[str, Any]]) -> list[str]:
    """The results as a table in Markdown."""
    titles = [
        *(
            "dataset",
            "job, setting",
            "measured",
            "core-s planned (interval)",
            "core-s of the run",
            "error",
        ),
        *(
            "wall planned, s",
            "wall of the run, s",
            "error",
            "workers' share of CPU",
            "read",
            "written",
        ),
    ]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return [*lines, *map(_format_row, results)]


def _format_row(result: dict[str, Any]) -> str:
    figures = result["figures"]
    cpu, wall = figures["core_hours"], figures.get("wall_seconds")
    low, high = 3600 * cpu["low"], 3600 * cpu["high"]
    cells = [
        result["dataset"],
        f"{result['job']}, {result['setting']}",
        f"{result['sampled']} of {result['images']}",
        f"{3600 * cpu['planned']:.1f} ({low:.1f}-{high:.1f})",
        f"{3600 * cpu['actual']:.1f}",
        f"{cpu['relative']:+.1%}",
        *(
            (f"{wall['planned']:.1f}", f"{wall['actual']:.1f}", f"{wall['relative']:+.1%}")
            if wall
            else ("", "", "")
        ),
        f"{result['workers_share']:.0%}",
        *(
            f"{figures[name]['relative']:+.1%}" if name in figures else ""
            for name in ("bytes_read", "bytes_written")
        ),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
