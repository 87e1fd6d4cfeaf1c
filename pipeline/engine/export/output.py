"""The output of an export: whether it may be written, what is already there, and its summary."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import log_files, storage, uris
from pipeline.errors import MissingObject
from pipeline.exports.assembly import LEFT_OUT_NAME, ExportCounts
from pipeline.exports.construction import FORMATS, WRITES, FormatName
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.run_record import RECORD_NAME, RunRecord, read_record
from pipeline.runs.input_places import PART_WRITES
from pipeline.runs.output import SUMMARY_NAME
from pipeline.runs.resume import find_run_to_resume
from pipeline.sources.listing import list_files

PARTS_FOLDER = "parts"
"""Where tasks commit the texts of their shards; removed when the files are complete."""
_OWN = (SUMMARY_NAME, LEFT_OUT_NAME)


def list_written(name: FormatName) -> tuple[str, ...]:
    """Patterns, below the output, of what an export in this format writes or removes, and of its folders."""
    folders = (PARTS_FOLDER, *_list_folders(WRITES[name]))
    return (RECORD_NAME, *_OWN, *WRITES[name], *log_files.WRITES, *folders)


@dataclass(frozen=True)
class ExportOutput:
    """An output folder that is this export's."""

    uri: str
    record: RunRecord

    @property
    def parts_uri(self) -> str:
        """The folder for the texts of the shards."""
        return uris.join(self.uri, PARTS_FOLDER)

    def read_complete(self) -> ExportCounts | None:
        """What the output holds if an earlier run of this export completed it, else None."""
        try:
            stored = parse_fields(storage.read(uris.join(self.uri, SUMMARY_NAME)))
            if stored.read_text("fingerprint") != self.record.fingerprint:
                return None
            files: Mapping[str, Any] = stored.read_object("files").values
            if any(storage.get_size(uris.join(self.uri, n)) != size for n, size in files.items()):
                return None
            if stored.read_integer("files_of_shards") != self._count_files_of_shards(files):
                return None
            return ExportCounts(
                stored.read_integer("images"),
                stored.read_integer("left_out"),
                stored.read_integer("boxes"),
                dict(files),
            )
        except (MissingObject, InvalidJson):
            return None

    def finish(self, counts: ExportCounts) -> None:
        """Put the summary, which marks the files as complete, and remove the texts of the shards."""
        summary = {
            **asdict(counts),
            "files_of_shards": self._count_files_of_shards(counts.files),
            "fingerprint": self.record.fingerprint,
        }
        data = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(self.uri, SUMMARY_NAME), data)
        self.remove_parts()

    def _count_files_of_shards(self, files: Mapping[str, int]) -> int:
        """How many files there are beside those that hold the whole dataset: one per image, or per shard."""
        written = _list_written_files(self.uri, self.record.settings["format"])
        return len(set(written) - files.keys() - set(_OWN))

    def remove_parts(self) -> None:
        """Remove the texts of the shards, which the files hold."""
        for name in storage.list_names(self.parts_uri):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in PART_WRITES):
                storage.remove(uris.join(self.parts_uri, name))


def open_export(output: str, record: RunRecord, *, overwrite: bool) -> ExportOutput:
    """Make an output ready: start it, resume the same export, or reject another one.

    With `overwrite`, the files of the earlier export are removed first, its summary before them.

    Raises:
        MismatchedOutput: another export wrote here, or files of unknown origin have the names that this one
            writes, and `overwrite` is not set.
        StorageError: the folder cannot be written.
    """
    name: FormatName = record.settings["format"]
    earlier = find_run_to_resume(
        output, record, overwrite=overwrite, list_remains=lambda: _list_written_files(output, name)
    )
    if overwrite:
        replaced = read_record(output)
        previous = name if replaced is None else replaced.settings.get("format", name)
        _clear(output, previous if previous in FORMATS else name)
    if earlier is None:
        record.write(output)
    return ExportOutput(output, record)


def _list_written_files(output: str, name: FormatName) -> list[str]:
    patterns = (*_OWN, *WRITES[name])
    paths = [*storage.list_names(output)]
    for folder in _list_folders(patterns):
        uri = uris.join(output, folder)
        if storage.is_folder(uri):
            paths += [f"{folder}/{path}" for path in list_files(uri, hidden=True).files]
    return [path for path in paths if any(fnmatch.fnmatchcase(path, p) for p in patterns)]


def _list_folders(patterns: Sequence[str]) -> list[str]:
    return sorted({pattern.partition("/")[0] for pattern in patterns if "/" in pattern})


def _clear(output: str, name: FormatName) -> None:
    storage.remove(uris.join(output, SUMMARY_NAME))
    for path in _list_written_files(output, name):
        storage.remove(uris.join(output, path))
    log_files.remove_log_files(output, log_files.list_log_files(output))
