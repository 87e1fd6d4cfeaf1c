"""Images that end whoever decodes them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.outcome import Outcome, Trial
from tests.chaos.stage import SHARD_SIZE, Stage

DEEDS = ("crash", "memory", "hang", "detector")
LIMITS = ("--image-seconds", "10", "--max-failed-fraction", "0.5")


def replaced_image(stage: Stage) -> Outcome:
    """An image that was replaced since its proposals were made, by one that hangs in the detector."""
    proposals = stage.proposals()
    victim = stage.images[len(stage.images) // 2]
    whole = victim.read_bytes()
    try:
        victim.write_bytes(b"CHAOS-hang\n")
        trial = Trial(stage, "replaced_image", *LIMITS, "--proposals", proposals)
        trial.ended()
        trial.rerun_until_done()
        return trial.outcome([victim.stem], note="hangs in the detector; proposals were stored")
    finally:
        victim.write_bytes(whole)


def poison_images(stage: Stage, deeds: Sequence[str] = DEEDS) -> list[Outcome]:
    """Images that crash the decoder, eat all memory, hang, or crash the detector; then they are mended.

    The first outcome is of the run with them, the second of `--retry-failed` once they are whole again.
    """
    every = len(stage.images) // len(deeds)
    victims = [stage.images[every * index + 1] for index in range(len(deeds))]
    whole = {path: path.read_bytes() for path in victims}
    poison = [path.stem for path in victims]
    try:
        for path, deed in zip(victims, deeds, strict=True):
            path.write_bytes(f"CHAOS-{deed}\n".encode())
        trial = Trial(stage, "poison_images", *LIMITS)
        trial.ended()
        trial.rerun_until_done()
        first = trial.outcome(poison)
    finally:
        for path, data in whole.items():
            path.write_bytes(data)
    again = Trial(stage, "poison_images", *LIMITS, "--retry-failed", begin=False)
    again.remember()
    again.driver = again.start()
    again.ended()
    again.fault = "retry_failed"
    told = again.driver.told()
    if f"{len(stage.images) - len(poison)} were done before" not in told:
        raise AssertionError(f"not just the failed ones were done again:\n{told[-2000:]}")
    second = again.outcome(
        note=f"{len(poison)} images done again, their parts put anew",
        allowed_redone=len(poison) * SHARD_SIZE,
    )
    return [first, second]
