"""The errors that a user can act on: each says which input, what is wrong, and what was expected.

A job prints the message of a `PipelineError` in one line and exits with its `exit_code`: 2 if the input is
wrong, 1 if the work could not be finished. Any other exception is a bug and shows its traceback.
"""


class PipelineError(Exception):
    """An error that the user can fix; its message is complete without a traceback."""

    exit_code = 2


class UnreadableDataset(PipelineError):
    """A dataset, manifest or annotation that is damaged or has the wrong content."""


class InvalidBox(UnreadableDataset):
    """An annotated box that is not finite, inverted, without area or wholly outside its image."""


class TooManyInvalidImages(UnreadableDataset):
    """More images or boxes of a dataset are invalid than allowed; no manifest is written."""


class UnreadableImage(PipelineError):
    """One image that cannot be read or decoded; a run records it as a `failed` row."""


class SizeMismatch(UnreadableImage):
    """An image of another size than its annotation or its proposals state: their boxes are elsewhere."""


class ImageTooLarge(UnreadableImage):
    """An image that needs more memory than a core's share of its node."""


class StorageError(PipelineError):
    """A store or path that cannot be reached, read, listed or written."""


class MissingObject(StorageError):
    """No object exists at the URI, or none can: a retry does not help."""


class UnusableObject(MissingObject):
    """What exists at the URI is not read: a FIFO, device or socket, or a file over the size limit."""


class ChangedContainer(MissingObject):
    """A file that holds images is no longer the one that the manifest was made from."""


class AccessDenied(StorageError):
    """The store answers, but rejects these credentials."""


class InvalidCheckpoint(PipelineError):
    """Weights or a checkpoint that cannot be used as asked."""


class NotFiniteOutput(PipelineError, ArithmeticError):
    """A network's scores or deltas for an image that are not finite numbers; a run records a `failed` row."""


class InvalidConfiguration(PipelineError):
    """An option, recipe or combination of options that is not possible."""


class MismatchedProposals(PipelineError):
    """Proposals that were computed for other images than the manifest's."""


class MismatchedOutput(PipelineError):
    """An output that an earlier run with other settings wrote."""


class ShardFailed(PipelineError):
    """A shard that could not be processed; the run's other shards are committed."""

    exit_code = 1


class TooManyFailedImages(PipelineError):
    """More images failed than the run allows; all finished shards are committed."""

    exit_code = 1


class NoCapacity(PipelineError):
    """No node of the cluster can hold a task or actor that the run needs."""

    exit_code = 1


class TrainingFailed(PipelineError):
    """Training that stopped because of its data, for example on a loss that is not finite."""

    exit_code = 1
