"""Near duplicates: recall and precision on seeded copies, and seconds and memory at scale.

python -m tests.benchmarks.duplicates copies --images VOCdevkit/VOC2007/JPEGImages [--limit 500]

python -m tests.benchmarks.duplicates scale [--images 100000] [--hashed 2000]

`copies` changes each image in six ways and searches the originals together with the copies of one way: recall
is the share of copies that are found with their original, precision the share of all pairs found that are
such pairs. `scale` draws JPEG files, times how long a core takes to decode and hash them, and searches as
many signatures as there would be images; those beyond the drawn ones have random hashes, one in 50 is a copy.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pyarrow as pa
from PIL import Image, ImageEnhance

from pipeline import imaging
from pipeline.inspection.near_duplicates import NearPairs, find_near_duplicates
from pipeline.inspection.signature import (
    DECODED_SIDE,
    PIXELS_SIDE,
    VIEWS,
    Signature,
    compute_signature,
)

_QUALITY = 90
_SHARD = 4096


def main() -> None:
    """Run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parsers = parser.add_subparsers(dest="what", required=True)
    copies = parsers.add_parser("copies")
    copies.add_argument("--images", type=Path, help="a folder of images; drawn ones by default")
    copies.add_argument("--limit", type=int, default=500)
    copies.add_argument("--seed", type=int, default=0)
    scale = parsers.add_parser("scale")
    scale.add_argument("--images", type=int, default=100_000)
    scale.add_argument("--hashed", type=int, default=2000)
    options = parser.parse_args()
    if options.what == "copies":
        measure_copies(options.images, options.limit, options.seed)
    else:
        measure_scale(options.images, options.hashed)


def measure_copies(folder: Path | None, limit: int, seed: int) -> None:
    """Print the table of seeded copies."""
    if folder is None:
        originals = [_draw_image(index) for index in range(limit)]
    else:
        paths = sorted(folder.iterdir())
        random.Random(seed).shuffle(paths)
        originals = [Image.open(path).convert("RGB") for path in paths[:limit]]
    signatures = [_sign(_encode(image)) for image in originals]
    alone = find_near_duplicates([_build_table(signatures)])
    print(f"{len(originals)} originals; pairs among them: {len(alone)}")
    print("| copy | recall | precision | pairs found |\n|---|---|---|---|")
    for name, change in COPIES.items():
        generator = random.Random(f"{seed}/{name}")
        changed = [_sign(change(image, generator)) for image in originals]
        pairs = find_near_duplicates([_build_table([*signatures, *changed])])
        recall, precision = score_pairs(pairs, len(originals), alone)
        print(f"| {name} | {recall:.3f} | {precision:.3f} | {len(pairs)} |", flush=True)


def score_pairs(pairs: NearPairs, originals: int, alone: NearPairs) -> tuple[float, float]:
    """Recall and precision; near duplicates among the originals, and their copies, are no errors.

    Args:
        pairs: those found among the originals and, behind them, one copy of each.
        originals: how many there are.
        alone: the pairs found among the originals alone.
    """
    repeated = set(zip(alone.first.tolist(), alone.second.tolist(), strict=True))
    true = recalled = counted = 0
    for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        of_first, of_second = first % originals, second % originals
        if (min(of_first, of_second), max(of_first, of_second)) in repeated:
            continue
        counted += 1
        if of_first == of_second:
            true += 1
            recalled += second - first == originals
    return recalled / originals, true / max(counted, 1)


_Change = Callable[[Image.Image, random.Random], bytes]


def _encode(image: Image.Image, quality: int = _QUALITY) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _rescale(image: Image.Image, generator: random.Random) -> bytes:
    factor = generator.uniform(0.4, 1.6)
    size = (round(image.width * factor), round(image.height * factor))
    return _encode(image.resize(size, Image.Resampling.BICUBIC))


def _crop(image: Image.Image, generator: random.Random) -> Image.Image:
    """Without 5 % of each side, at any place."""
    width, height = round(0.95 * image.width), round(0.95 * image.height)
    left = generator.randint(0, image.width - width)
    top = generator.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _brighten(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.3)


COPIES: dict[str, _Change] = {
    "rescaled by 0.4 to 1.6": _rescale,
    "recompressed, JPEG quality 30": lambda image, _: _encode(image, 30),
    "cropped by 5 %": lambda image, generator: _encode(_crop(image, generator)),
    "mirrored": lambda image, _: _encode(_mirror(image)),
    "brightened by 1.3": lambda image, _: _encode(_brighten(image)),
    "all of them": lambda image, generator: _encode(
        _brighten(_mirror(_crop(image, generator))), 50
    ),
}


def _sign(data: bytes) -> tuple[str, Signature]:
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return digest, compute_signature(imaging.decode_image(data, enough=DECODED_SIDE))


def _build_table(signed: Sequence[tuple[str, Signature]]) -> pa.Table:
    return pa.table(
        {
            "image_id": [str(number) for number in range(len(signed))],
            "status": ["ok"] * len(signed),
            "image_md5": [digest for digest, _ in signed],
            "hashes": pa.array([s.hashes for _, s in signed], pa.list_(pa.uint64())),
            "pixels": pa.array([s.pixels.tobytes() for _, s in signed], pa.binary()),
            "contrast": pa.array([s.contrast for _, s in signed], pa.float32()),
        }
    )


def _draw_image(number: int) -> Image.Image:
    """A smooth image of 500x375 pixels with some noise."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)


def measure_scale(images: int, hashed: int) -> None:
    """Print what hashing takes for each image, and the search for all of them."""
    files = [_encode(_draw_image(number)) for number in range(hashed)]
    _sign(files[0])  # loads what is loaded once
    began = process_time()
    signed = [_sign(data) for data in files]
    milliseconds = 1000 * (process_time() - began) / hashed
    minutes = milliseconds * images / 2 / 60_000
    print(f"decode and hash: {milliseconds:.1f} ms of a core for an image of 500x375")
    print(f"{images} images on two cores: {minutes:.1f} minutes")
    del files
    memory = _read_peak()
    began_wall, began = perf_counter(), process_time()
    pairs = find_near_duplicates(_draw_signatures(signed, images))
    print(
        f"search of {images} signatures: {perf_counter() - began_wall:.1f} s, "
        f"{process_time() - began:.1f} s of CPU, {pairs.candidates} candidates compared, "
        f"{len(pairs)} pairs; peak memory {memory} MB before, "
        f"{_read_peak()} MB after"
    )


def _read_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _draw_signatures(signed: Sequence[tuple[str, Signature]], images: int) -> Iterator[pa.Table]:
    """The given signatures, then drawn ones, of which one in 50 is a copy of the one before it."""
    yield _build_table(signed)
    generator = np.random.default_rng(0)
    for start in range(len(signed), images, _SHARD):
        count = min(_SHARD, images - start)
        order = np.argsort(generator.random((count, 64)), axis=1)
        bits = np.packbits(order < 32, axis=1)  # half of the bits of a hash are set
        base = bits.view(">u8").astype(np.uint64).reshape(count, 1)
        flips = np.uint64(1) << generator.integers(0, 64, (2, count, len(VIEWS))).astype(np.uint64)
        hashes = base ^ flips[0] ^ flips[1]
        pixels = generator.integers(0, 255, (count, PIXELS_SIDE**2), dtype=np.uint8)
        is_copy = np.arange(1, count) % 50 == 0
        hashes[1:][is_copy] = hashes[:-1][is_copy]
        pixels[1:][is_copy] = pixels[:-1][is_copy]
        rows = [
            (f"{start + row}", Signature(hashes[row], pixels[row], 128.0, 60.0))
            for row in range(count)
        ]
        yield _build_table(rows)


if __name__ == "__main__":
    main()
