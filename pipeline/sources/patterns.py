"""Files named by patterns: `*` and `?`, ranges such as `{000..127}`, and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.sources.listing import check_public, list_files
from pipeline.storage_errors import translate_errors

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_FILES = 1_000_000


def expand_patterns(patterns: Sequence[str], endings: tuple[str, ...]) -> list[str]:
    """The absolute URIs of the files that patterns name, in the order of the patterns, each once.

    Args:
        patterns: files, patterns or folders, in any store. Of a folder, the files below it with one of
            `endings` are taken, sorted; so are the matches of `*` and `?`.
        endings: of the files to take from folders, in lower case.

    Raises:
        UnreadableDataset: a pattern or folder names no file, or there are no patterns.
        MissingObject: a file that is named without a pattern does not exist.
        InvalidConfiguration: a URI holds a password or signature.
        StorageError: a store cannot be reached.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        matches: list[str] = []
        for name in _expand_braces(pattern):
            matches += _expand_name(uris.make_absolute(name), endings)
        if not matches:
            raise UnreadableDataset(f"{uris.redact_uri(pattern)} names no file")
        files.update(dict.fromkeys(matches))
    if not files:
        raise UnreadableDataset("no files are named")
    return list(files)


def _expand_name(uri: str, endings: tuple[str, ...]) -> list[str]:
    check_public(uri)
    if storage.is_folder(uri):
        listing = list_files(uri, hidden=False)
        taken = [path for path in listing.files if path.lower().endswith(endings)]
        if not taken:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} holds no file with the ending {' or '.join(endings)}"
            )
        return [uris.join(listing.root, path) for path in taken]
    if "*" not in uri and "?" not in uri:
        storage.get_size(uri)  # fails if there is none
        return [uri]
    store, path = storage.get_filesystem(uri)
    with translate_errors(uri, "listed"):
        store.invalidate_cache()
        matches = sorted(str(name) for name in store.glob(path) if store.isfile(name))
    root = uri[: uri.index(path)] if path in uri else ""
    return [root + match for match in matches]


def _expand_braces(pattern: str) -> Iterator[str]:
    """The names that `{a,b}` and `{000..127}` stand for; leading zeros give the width."""
    match = _RANGE.search(pattern)
    if match is not None:
        first, last = int(match[1]), int(match[2])
        if last < first or last - first >= _MOST_FILES:
            raise UnreadableDataset(
                f"{uris.redact_uri(pattern)}: {match[0]} is no range of at most {_MOST_FILES:,} files"
            )
        values = [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    else:
        match = _CHOICE.search(pattern)
        if match is None:
            yield pattern
            return
        values = match[1].split(",")
    for value in values:
        yield from _expand_braces(pattern[: match.start()] + value + pattern[match.end() :])
