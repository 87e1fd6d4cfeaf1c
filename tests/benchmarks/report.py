"""Seconds and bytes of a report on images of the local disk.

python -m tests.benchmarks.report [--images 5000] [--jpegs FOLDER]

Draws a manifest, detections of 80 classes and JPEG files; with `--jpegs` it repeats a folder's files instead.
Analyses them in this process, then measures what the report alone takes, and how large it is: the index, the
heaviest gallery with all its thumbnails, all files.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import re
import resource
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from pipeline import imaging
from pipeline.analysis.diagnostics import DiagnosticOptions
from pipeline.engine.analyze.run import analyze_detections
from pipeline.report.writing import ReportOptions
from tests.benchmarks.analysis_inputs import HEIGHT, WIDTH, DrawnDataset, write_inputs

_DRAWN = 32


def main() -> None:
    """Write the inputs, analyse them, and print the figures of the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections-per-image", type=int, default=97)
    parser.add_argument("--report-images", type=int, default=2000)
    parser.add_argument("--jpegs", type=Path, help="a folder with JPEG files to use as images")
    parser.add_argument("--output", help="keep the results in this folder")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.output or temporary)
        write_jpegs(folder / "images", options.images, options.jpegs)
        dataset = DrawnDataset(
            options.images,
            options.classes,
            options.detections_per_image,
            image_folder=str(folder / "images"),
        )
        manifest, detections = write_inputs(dataset, str(folder))
        measure(detections, manifest, str(folder), options.report_images, options.profile)
        print_sizes(folder / "report")


def write_jpegs(folder: Path, images: int, source: Path | None) -> None:
    """Write as many JPEG files as there are images, of the source's files or of smooth noise."""
    folder.mkdir(parents=True, exist_ok=True)
    if source is None:
        files = [_draw_jpeg(seed) for seed in range(_DRAWN)]
    else:
        files = [path.read_bytes() for path in sorted(source.glob("*.jpg"))[:2000]]
    for row in range(images):
        (folder / f"{row:012d}.jpg").write_bytes(files[row % len(files)])


def _draw_jpeg(seed: int) -> bytes:
    """Smooth and fine noise, about as many bytes as a photograph of this size."""
    rng = np.random.default_rng(seed)
    smooth = imaging.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), WIDTH, HEIGHT)
    fine = rng.normal(0, 9, (HEIGHT, WIDTH, 1))
    return imaging.encode_jpeg((smooth + fine).clip(0, 255).astype(np.uint8), 90)


def measure(detections: str, manifest: str, output: str, images: int, is_profiled: bool) -> None:
    """Analyse, write the report, and print its seconds."""
    with analyze_detections(detections, manifest, output) as analysis:
        metrics = analysis.compute_metrics()
        diagnostics = analysis.compute_diagnostics(metrics, DiagnosticOptions(resamples=0))
        content = analysis.build_content(metrics, diagnostics)
        profile = cProfile.Profile()
        start, cpu = perf_counter(), process_time()
        if is_profiled:
            profile.enable()
        summary = analysis.write_report(output, content, ReportOptions(images))
        profile.disable()
        print(f"report: {perf_counter() - start:.1f} s, {process_time() - cpu:.1f} CPU seconds")
        print(f"{summary.galleries} galleries, {summary.thumbnails} thumbnails")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"highest memory of the process: {memory:.2f} GB")
    if is_profiled:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


def print_sizes(report: Path) -> None:
    """Print the bytes of the index, of the heaviest gallery with its thumbnails, and of all files."""
    total = sum(path.stat().st_size for path in report.rglob("*") if path.is_file())
    pages = {path: _weigh_page(path, report) for path in report.glob("galleries/*.html")}
    heaviest = max(pages, key=lambda path: pages[path])
    index = (report / "index.html").stat().st_size
    print(f"index: {index / 1e6:.2f} MB; all files: {total / 1e6:.1f} MB")
    print(f"heaviest gallery: {heaviest.name}, {pages[heaviest] / 1e6:.2f} MB with its thumbnails")


def _weigh_page(page: Path, report: Path) -> int:
    text = page.read_text()
    thumbnails = set(re.findall(r'src="\.\./(images/[^"]+)"', text))
    return len(text.encode()) + sum((report / name).stat().st_size for name in thumbnails)


if __name__ == "__main__":
    main()
