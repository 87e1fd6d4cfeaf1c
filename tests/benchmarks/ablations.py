"""The paper's claims as relative results, each with a paired bootstrap's interval over the test images.

python -m tests.benchmarks.ablations --manifest train.parquet --proposals train --test-manifest val.parquet \
    --test-proposals val --weights mobilenet_v2.pth --output DIR [--epochs 6] [--only joint,svd]

One network is trained jointly; the others differ from it in one thing:

- classification: without the box loss; stage_wise: then the box layer alone (Fast R-CNN, table 6)
- scales: tested, and trained, at several scales (table 7)
- proposals: detected with the best so many of each image (figure 3)
- svd: a network with fc6 and fc7 is trained jointly, and these are factorised (section 4.4), mAP and
  seconds; seconds on VGG16 too, with random weights

Every step is a job whose command is printed; one that is done is not done again. `DIR/ablations.md` is
written anew after each claim. Options after `--` go to each training, such as `-- --workers 1`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.ablation_steps import Row, Steps, markdown

CLAIMS = ("joint", "classification", "stage_wise", "scales", "proposals", "svd")


@dataclass(frozen=True)
class Base:
    """The jointly trained network and what its ablations are measured with."""

    network: tuple[str, ...]
    """Options of each training beside the recipe's name."""
    fully_connected: tuple[str, ...]
    """What gives the network of the claim `svd` its fc6 and fc7."""
    ranks: tuple[int, int]
    """A quarter and a sixteenth of fc6 and fc7, as the paper's 1024 and 256 of 4096."""
    scales: tuple[int, ...]
    """The paper's 480 to 1200 relative to the single 600."""
    side: int
    cap: int
    """Of the single scale; several may be twice as long, as the paper's."""
    proposals: int
    """Per image, unless their number is what is looked at."""
    fewer: tuple[int, ...]


BASES = {
    # Under fc6 lies the ReLU map of 576 channels, as RoI max pooling wants one.
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
    """The claims; each method does one's steps and returns its rows of the table."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.base = BASES[options.recipe]
        self.folder = Path(options.output)
        self.steps = Steps(self.folder)

    def joint(self) -> list[Row]:
        """The network that all others are compared with."""
        detected = self._detected("joint", self._trained("joint"))
        return [
            Row(
                "trained jointly",
                self.steps.compare(detected, detected, self._scored_on()),
                first=True,
            )
        ]

    def classification(self) -> list[Row]:
        """Trained without the box loss: detections keep the proposals' boxes."""
        trained = self._trained("classification", "--box-loss-weight", "0")
        return [self._row("classification loss only", self._detected("classification", trained))]

    def stage_wise(self) -> list[Row]:
        """The box layer trained afterwards, on the network as the classification loss left it."""
        trained = self._trained(
            "stage_wise",
            *("--box-loss-weight", "0", "--box-epochs", str(self.options.epochs / 2)),
        )
        return [self._row("stage-wise", self._detected("stage_wise", trained))]

    def scales(self) -> list[Row]:
        """One scale or five, in testing and in training."""
        base = self.base
        several = ("--scales", *map(str, base.scales), "--scale-cap", str(2 * base.cap))
        single = ("--scales", str(base.side), "--scale-cap", str(base.cap))
        rows = [
            self._row(
                "trained at 1 scale, tested at 5",
                self._detected("test_scales", self._trained("joint"), *several),
            )
        ]
        trained = self._trained(
            "scales", *("--short-sides", *map(str, base.scales), "--max-side", str(2 * base.cap))
        )
        for name, tested, told in (("scales_1", single, 1), ("scales_5", several, 5)):
            rows.append(
                self._row(
                    f"trained at 5 scales, tested at {told}",
                    self._detected(name, trained, *tested),
                )
            )
        return rows

    def proposals(self) -> list[Row]:
        """The best so many proposals of each image."""
        return [
            self._row(
                f"{count} proposals",
                self._detected(f"proposals_{count}", self._trained("joint"), most=count),
            )
            for count in self.base.fewer
        ]

    def svd(self) -> list[Row]:
        """Compressed without any training afterwards."""
        fc6, fc7 = self.base.ranks
        name = "fully_connected" if self.base.fully_connected else "joint"
        source = self._trained(name, *self.base.fully_connected)
        small = self.folder / "trained" / "svd"
        self.steps.job(
            *("compress", "--checkpoint", source, "--output", small, "--repeats", "0"),
            *("--fc6", str(fc6), "--fc7", str(fc7)),
        )
        whole, ranked = self._detected(name, source), self._detected("svd", str(small))
        before, after = self.steps.seconds("svd", [source, str(small)], self.base.proposals)
        rows = [
            Row(
                "with fc6 and fc7", self.steps.compare(whole, whole, self._scored_on()), first=True
            ),
            Row(
                f"fc6, fc7 of rank {fc6}, {fc7}",
                self.steps.compare(whole, ranked, self._scored_on()),
                f"{before:.3f} to {after:.3f} s per image ({before / after:.2f}x)",
            ),
        ]
        if self.options.recipe == "tiny":
            return rows
        before, after = self.steps.seconds_of_vgg16(2000)
        told = f"{before:.2f} to {after:.2f} s per image of 2000 RoIs ({before / after:.2f}x)"
        return [*rows, Row("VGG16 of random weights, ranks 1024, 256", note=told)]

    def _trained(self, name: str, *changed: str) -> str:
        """Train a network that differs in some options, unless it is there; its checkpoint."""
        options, output = self.options, str(self.folder / "trained" / name)
        weights = () if options.weights is None else ("--weights", options.weights)
        network = _without(self.base.network, changed)
        self.steps.job(
            *("train", "--manifest", options.manifest, "--proposals", options.proposals),
            *("--recipe", options.recipe, *weights, "--epochs", str(options.epochs)),
            *(*network, *changed, *options.training, "--output", output),
        )
        return output

    def _detected(self, name: str, checkpoint: str, *changed: str, most: int | None = None) -> str:
        options, output = self.options, str(self.folder / "detected" / name)
        limit = () if options.limit is None else ("--limit", str(options.limit))
        self.steps.job(
            *("detect", "--manifest", options.test_manifest, "--proposals", options.test_proposals),
            *("--checkpoint", checkpoint, "--max-proposals", str(most or self.base.proposals)),
            *(*changed, *limit, "--output", output),
        )
        return output

    def _row(self, name: str, detected: str) -> Row:
        """The row of a run that is compared with the jointly trained one."""
        joint = self._detected("joint", self._trained("joint"))
        return Row(name, self.steps.compare(joint, detected, self._scored_on()))

    def _scored_on(self) -> str:
        return str(self.options.test_manifest)


def _without(options: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The options but for those that are given anew."""
    anew = {word for word in changed if word.startswith("--")}
    kept: list[str] = []
    keep = True
    for word in options:
        keep = word not in anew if word.startswith("--") else keep
        kept += [word] * keep
    return kept


def main() -> None:
    """Do what is asked for and is not done yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("manifest", "proposals", "test-manifest", "test-proposals", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--recipe", choices=tuple(BASES), default="mobilenet_v2")
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--limit", type=int, help="only the first so many test images")
    parser.add_argument("--only", type=_claims, default=CLAIMS, help=",".join(CLAIMS))
    own, given = sys.argv[1:], []
    if "--" in own:
        own, given = own[: own.index("--")], own[own.index("--") + 1 :]
    options = parser.parse_args(own, argparse.Namespace(training=given))
    run(options)


def run(options: argparse.Namespace) -> None:
    """The claims in order, the table after each."""
    ablations = Ablations(options)
    sections: dict[str, list[Row]] = {}
    for claim in CLAIMS:
        if claim not in options.only and claim != "joint":
            continue
        method: Callable[[], list[Row]] = getattr(ablations, claim)
        sections[claim] = method()
        told = markdown(sections)
        (ablations.folder / "ablations.md").write_text(told)
    print(f"\n{told}")


def _claims(told: str) -> tuple[str, ...]:
    names = tuple(told.split(","))
    unknown = [name for name in names if name not in CLAIMS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(CLAIMS)}")
    return names


if __name__ == "__main__":
    main()
