"""The errors that a user can act on: each says which input, what is wrong, and what was expected.

A job prints the message of a `PipelineError` in one line and exits with its `exit_code`: 2 where the
input was wrong, 1 where the work could not be finished. Any other exception is a defect of the project
and shows its traceback.
"""


class PipelineError(Exception):
    """Something the user can put right; its message is complete without a traceback."""

    exit_code = 2


class UnreadableDataset(PipelineError):
    """A dataset, manifest or annotation that does not hold what it should."""


class InvalidBox(UnreadableDataset):
    """An annotated box that is inverted or lies wholly outside its image."""


class UnreadableImage(PipelineError):
    """One image that cannot be read or decoded; a run keeps it as a `failed` row."""


class StorageError(PipelineError):
    """A store or path that cannot be reached, read, listed or written."""


class InvalidCheckpoint(PipelineError):
    """Weights or a checkpoint that cannot be used as asked."""


class InvalidConfiguration(PipelineError):
    """An option, recipe or combination of options that cannot be carried out."""


class MismatchedProposals(PipelineError):
    """Proposals that were made for other images than the ones at hand."""


class MismatchedOutput(PipelineError):
    """An output that an earlier run with other settings wrote."""


class ShardFailed(PipelineError):
    """A shard that could not be done; the run's other shards are committed."""

    exit_code = 1


class TooManyFailedImages(PipelineError):
    """More images failed than the run allows; what was done is committed."""

    exit_code = 1


class NoCapacity(PipelineError):
    """No node of the cluster can hold a task or actor that the run needs."""

    exit_code = 1


class TrainingFailed(PipelineError):
    """Training that stopped for a reason in the data, such as a loss that is not finite."""

    exit_code = 1
