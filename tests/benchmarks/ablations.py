"""The paper's claims as relative results, each with a paired-bootstrap interval over the test images.

python -m tests.benchmarks.ablations --manifest train.parquet --proposals train --test-manifest val.parquet \
    --test-proposals val --weights mobilenet_v2.pth --output DIR [--epochs 6] [--only joint,svd]

One network is trained jointly; the others differ from it in one thing:

- classification: without the box loss; stage_wise: then the box layer alone (Fast R-CNN, table 6)
- scales: tested, and trained, at several scales (table 7)
- proposals: detected with the best N proposals of each image (figure 3)
- svd: a network with fc6 and fc7 is trained jointly, then both layers are factorised (section 4.4); mAP
  and seconds, and seconds on VGG16 with random weights

Every step is a job whose command is printed; a rerun skips finished steps. Each claim rewrites
`DIR/ablations.md`. Options after `--` go to each training, such as `-- --workers 1`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.ablation_steps import Row, Steps, format_table

CLAIMS = ("joint", "classification", "stage_wise", "scales", "proposals", "svd")


@dataclass(frozen=True)
class Base:
    """The options of the jointly trained network and of its ablations."""

    network: tuple[str, ...]
    """Options of each training, besides the recipe's name."""
    fully_connected: tuple[str, ...]
    """Options that give the network of the claim `svd` its fc6 and fc7."""
    ranks: tuple[int, int]
    """A quarter of fc6 and a sixteenth of fc7, like the paper's 1024 and 256 of 4096."""
    scales: tuple[int, ...]
    """Short sides in the ratio of the paper's 480 to 1200 to its single 600."""
    side: int
    cap: int
    """Longest side at the single scale; twice this at several scales, like the paper."""
    proposals: int
    """Per image, except in the claim `proposals`."""
    proposal_counts: tuple[int, ...]
    """Per image in the claim `proposals`."""


BASES = {
    # fc6 reads the ReLU map of 576 channels, because RoI max pooling needs one.
    "mobilenet_v2": Base(
        ("--short-sides", "384", "--max-side", "640"),
        ("--fc-widths", "1024", "1024"),
        (256, 64),
        (304, 368, 440, 552, 768),
        384,
        640,
        1000,
        (50, 100, 200, 500, 2000),
    ),
    # To try the script in minutes on drawn images.
    "tiny": Base(
        ("--short-sides", "120", "--max-side", "200"),
        (),
        (32, 8),
        (96, 112, 136, 176, 240),
        120,
        200,
        300,
        (20, 50),
    ),
}


class Ablations:
    """Each method runs the steps of one claim and returns its rows of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.base = BASES[options.recipe]
        self.folder = Path(options.output)
        self.steps = Steps(self.folder)

    def measure_joint(self) -> list[Row]:
        """The network that is the baseline of all others."""
        detections = self._detect("joint", self._train("joint"))
        comparison = self._compare(detections, detections)
        return [Row("trained jointly", comparison, is_baseline=True)]

    def measure_classification(self) -> list[Row]:
        """Training without the box loss: detections keep the proposals' boxes."""
        checkpoint = self._train("classification", "--box-loss-weight", "0")
        detections = self._detect("classification", checkpoint)
        return [self._build_row("classification loss only", detections)]

    def measure_stage_wise(self) -> list[Row]:
        """The box layer trained after the network, which the classification loss has trained."""
        checkpoint = self._train(
            "stage_wise",
            *("--box-loss-weight", "0", "--box-epochs", str(self.options.epochs / 2)),
        )
        return [self._build_row("stage-wise", self._detect("stage_wise", checkpoint))]

    def measure_scales(self) -> list[Row]:
        """One scale or five, in training and in testing."""
        base = self.base
        several = ("--scales", *map(str, base.scales), "--scale-cap", str(2 * base.cap))
        single = ("--scales", str(base.side), "--scale-cap", str(base.cap))
        rows = [
            self._build_row(
                "trained at 1 scale, tested at 5",
                self._detect("test_scales", self._train("joint"), *several),
            )
        ]
        checkpoint = self._train(
            "scales", *("--short-sides", *map(str, base.scales), "--max-side", str(2 * base.cap))
        )
        for name, test_options, scales in (("scales_1", single, 1), ("scales_5", several, 5)):
            rows.append(
                self._build_row(
                    f"trained at 5 scales, tested at {scales}",
                    self._detect(name, checkpoint, *test_options),
                )
            )
        return rows

    def measure_proposals(self) -> list[Row]:
        """Detection with the best N proposals of each image."""
        return [
            self._build_row(
                f"{count} proposals",
                self._detect(f"proposals_{count}", self._train("joint"), max_proposals=count),
            )
            for count in self.base.proposal_counts
        ]

    def measure_svd(self) -> list[Row]:
        """Compression without any training afterwards."""
        fc6, fc7 = self.base.ranks
        name = "fully_connected" if self.base.fully_connected else "joint"
        source = self._train(name, *self.base.fully_connected)
        small = self.folder / "trained" / "svd"
        self.steps.run_job(
            *("compress", "--checkpoint", source, "--output", small, "--repeats", "0"),
            *("--fc6", str(fc6), "--fc7", str(fc7)),
        )
        whole, ranked = self._detect(name, source), self._detect("svd", str(small))
        before, after = self.steps.measure_seconds("svd", [source, str(small)], self.base.proposals)
        rows = [
            Row("with fc6 and fc7", self._compare(whole, whole), is_baseline=True),
            Row(
                f"fc6, fc7 of rank {fc6}, {fc7}",
                self._compare(whole, ranked),
                f"{before:.3f} to {after:.3f} s per image ({before / after:.2f}x)",
            ),
        ]
        if self.options.recipe == "tiny":
            return rows
        before, after = self.steps.measure_vgg16_seconds(2000)
        note = f"{before:.2f} to {after:.2f} s per image of 2000 RoIs ({before / after:.2f}x)"
        return [*rows, Row("VGG16 of random weights, ranks 1024, 256", note=note)]

    def _train(self, name: str, *changed: str) -> str:
        """Train a network with changed options, unless it is trained already; return its checkpoint."""
        options, output = self.options, str(self.folder / "trained" / name)
        weights = () if options.weights is None else ("--weights", options.weights)
        network = _drop_options(self.base.network, changed)
        self.steps.run_job(
            *("train", "--manifest", options.manifest, "--proposals", options.proposals),
            *("--recipe", options.recipe, *weights, "--epochs", str(options.epochs)),
            *(*network, *changed, *options.training, "--output", output),
        )
        return output

    def _detect(
        self, name: str, checkpoint: str, *changed: str, max_proposals: int | None = None
    ) -> str:
        options, output = self.options, str(self.folder / "detected" / name)
        limit = () if options.limit is None else ("--limit", str(options.limit))
        count = max_proposals or self.base.proposals
        self.steps.run_job(
            *("detect", "--manifest", options.test_manifest, "--proposals", options.test_proposals),
            *("--checkpoint", checkpoint, "--max-proposals", str(count)),
            *(*changed, *limit, "--output", output),
        )
        return output

    def _build_row(self, name: str, detections: str) -> Row:
        """Compare a run's detections with those of the jointly trained network."""
        joint = self._detect("joint", self._train("joint"))
        return Row(name, self._compare(joint, detections))

    def _compare(self, first: str, second: str) -> Mapping[str, Any]:
        return self.steps.compare(first, second, str(self.options.test_manifest))


def _drop_options(options: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The options without those that `changed` sets."""
    replaced = {word for word in changed if word.startswith("--")}
    remaining: list[str] = []
    is_replaced = False
    for word in options:
        is_replaced = word in replaced if word.startswith("--") else is_replaced
        if not is_replaced:
            remaining.append(word)
    return remaining


def main() -> None:
    """Run the requested claims and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="manifest for training")
    parser.add_argument("--proposals", required=True, help="stored proposals for training")
    parser.add_argument("--test-manifest", required=True, help="manifest for testing")
    parser.add_argument("--test-proposals", required=True, help="stored proposals for testing")
    parser.add_argument("--output", required=True, help="folder for networks, detections, table")
    parser.add_argument("--weights", help="ImageNet weights of the backbone")
    parser.add_argument(
        "--recipe", choices=tuple(BASES), default="mobilenet_v2", help="recipe of all networks"
    )
    parser.add_argument("--epochs", type=float, default=6.0, help="epochs of each training")
    parser.add_argument("--limit", type=int, help="number of test images; all by default")
    parser.add_argument(
        "--only",
        type=_parse_claims,
        default=CLAIMS,
        help=f"comma-separated; all by default: {','.join(CLAIMS)}",
    )
    arguments, training = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, training = arguments[:split], arguments[split + 1 :]
    options = parser.parse_args(arguments, argparse.Namespace(training=training))
    run(options)


def run(options: argparse.Namespace) -> None:
    """Run the claims in order and write the table after each."""
    ablations = Ablations(options)
    sections: dict[str, list[Row]] = {}
    for claim in CLAIMS:
        if claim not in options.only and claim != "joint":
            continue
        method: Callable[[], list[Row]] = getattr(ablations, f"measure_{claim}")
        sections[claim] = method()
        table = format_table(sections)
        (ablations.folder / "ablations.md").write_text(table)
    print(f"\n{table}")


def _parse_claims(argument: str) -> tuple[str, ...]:
    names = tuple(argument.split(","))
    unknown = [name for name in names if name not in CLAIMS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown claim {unknown[0]!r} (choose from {', '.join(CLAIMS)})"
        )
    return names


if __name__ == "__main__":
    main()
