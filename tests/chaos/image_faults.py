"""Images that end the process that decodes them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.outcome import Outcome
from tests.chaos.stage import SHARD_SIZE, Stage
from tests.chaos.trial import Trial

DEEDS = ("crash", "memory", "hang", "detector")
LIMITS = ("--image-seconds", "10", "--max-failed-fraction", "0.5")


def replace_image(stage: Stage) -> Outcome:
    """Replace an image, after its proposals were computed, by one that hangs in the detector."""
    proposals = stage.ensure_proposals()
    victim = stage.images[len(stage.images) // 2]
    original = victim.read_bytes()
    try:
        victim.write_bytes(b"CHAOS-hang\n")
        trial = Trial(stage, "replaced_image", *LIMITS, "--proposals", proposals)
        trial.wait_for_end()
        trial.rerun_until_done()
        return trial.compare([victim.stem], note="hangs in the detector; stored proposals")
    finally:
        victim.write_bytes(original)


def poison_images(stage: Stage, deeds: Sequence[str] = DEEDS) -> list[Outcome]:
    """Run with images that crash the decoder, use all memory, hang or crash the detector; then restore them.

    The first outcome is that of the run with these images, the second that of `--retry-failed` afterwards.
    """
    spacing = len(stage.images) // len(deeds)
    victims = [stage.images[spacing * index + 1] for index in range(len(deeds))]
    originals = {path: path.read_bytes() for path in victims}
    poison = [path.stem for path in victims]
    try:
        for path, deed in zip(victims, deeds, strict=True):
            path.write_bytes(f"CHAOS-{deed}\n".encode())
        trial = Trial(stage, "poison_images", *LIMITS)
        trial.wait_for_end()
        trial.rerun_until_done()
        first = trial.compare(poison)
    finally:
        for path, data in originals.items():
            path.write_bytes(data)
    retry = Trial(stage, "poison_images", *LIMITS, "--retry-failed", begin=False)
    retry.remember_parts()
    retry.driver = retry.start_job()
    retry.wait_for_end()
    retry.fault = "retry_failed"
    log = retry.driver.read_log()
    if f"{len(stage.images) - len(poison)} were done before" not in log:
        raise AssertionError(
            f"the retry processed other images than the failed ones:\n{log[-2000:]}"
        )
    second = retry.compare(
        note=f"{len(poison)} images retried, their parts rewritten",
        allowed_redone=len(poison) * SHARD_SIZE,
    )
    return [first, second]
