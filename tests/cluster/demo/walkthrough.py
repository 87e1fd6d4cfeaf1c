"""The steps of the demo: a dataset into a store, the five jobs on the cluster, the check of each output."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from rich.console import Console

from pipeline import storage
from pipeline.sources.drawn_dataset import draw_dataset
from tests.chaos.outputs import list_parts
from tests.cluster.demo.disturbances import (
    find_resumed_from,
    lose_node,
    stop_job,
    submit_without_waiting,
)
from tests.cluster.demo.local_cluster import LocalCluster, start_store
from tests.cluster.demo.outcome import Outcome, count_rows
from tests.cluster.submission import RayJobs, Submission

ROOT = Path(__file__).parents[3]
BUCKET = "demo"
DATASET, RUN = f"s3://{BUCKET}/dataset", f"s3://{BUCKET}/run"
SPLITS = ("train", "test")
SHARD_SIZE = 4
PREPARE = (
    "python jobs/prepare.py voc --root {dataset} --split {split} --output {run}/{split}.parquet"
)
PROPOSE = (
    "python jobs/propose.py --manifest {run}/train.parquet --output {run}/proposals/train "
    f"--strategy quality --shard-size {SHARD_SIZE}"
)
TRAIN = (
    "python jobs/train.py --manifest {run}/train.parquet --proposals {run}/proposals/train "
    "--recipe tiny --epochs 6 --output {run}/checkpoint"
)
DETECT = (
    "python jobs/detect.py --manifest {run}/test.parquet --checkpoint {run}/checkpoint "
    f"--output {{run}}/detections --shard-size {SHARD_SIZE}"
)
ANALYZE = (
    "python jobs/analyze.py detections --detections {run}/detections --manifest {run}/test.parquet "
    "--output {run}/analysis"
)


class JobFailed(RuntimeError):
    """A submitted job did not succeed."""


def list_commands() -> list[list[str]]:
    """The words of the commands that the demo submits, in order."""
    prepare = [_format_command(PREPARE, split=split) for split in SPLITS]
    return [*prepare, *map(_format_command, (PROPOSE, TRAIN, DETECT, ANALYZE))]


def _format_command(command: str, **values: str) -> list[str]:
    return command.format(dataset=DATASET, run=RUN, **values).split()


@dataclass
class Walkthrough:
    """One demo, from the empty store to the tables."""

    folder: Path
    """Local folder for the report, the logs and cluster-demo.json."""
    train_images: int
    test_images: int
    console: Console
    outcome: Outcome = field(default_factory=Outcome)

    def run(self) -> Outcome:
        """Walk through all steps.

        Raises:
            JobFailed: a job ended with an error.
            RuntimeError: the cluster does not start, or does not take a job.
        """
        began = perf_counter()
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            with self._measure("start"):
                self._say("an S3 store, OpenStack Swift, with the bucket demo")
                address = stack.enter_context(start_store(BUCKET))
                self._say(f"AWS_ENDPOINT_URL={address}", style="dim")
                cluster = stack.enter_context(self._start_cluster())
            with self._measure("draw and upload"):
                ids = self._upload_dataset(Path(folder))
            self._run_jobs(RayJobs(cluster.raylets, ROOT, self._echo), cluster)
            with self._measure("check"):
                self._check(*ids)
            self.outcome.nodes_started = cluster.nodes_started
            self.outcome.nodes_killed = cluster.nodes_killed
        self.outcome.seconds = round(perf_counter() - began, 1)
        return self.outcome

    @contextlib.contextmanager
    def _start_cluster(self) -> Iterator[LocalCluster]:
        self._say("a Ray head without cores, with a dashboard and token authentication")
        with LocalCluster() as cluster:
            for _ in range(2):
                self._say(f"{cluster.add_node().name} with one core")
            address = f"http://127.0.0.1:{cluster.raylets.dashboard_port}"
            self._say(f"RAY_API_SERVER_ADDRESS={address} RAY_AUTH_MODE=token", style="dim")
            yield cluster

    def _upload_dataset(self, folder: Path) -> tuple[list[str], list[str]]:
        """Draw the dataset and put it into the store; returns the ids of both splits."""
        draw_dataset(folder, self.train_images, self.test_images)
        store, _ = storage.get_filesystem(DATASET)
        store.put(str(folder), DATASET, recursive=True)
        self._say(f"{self.train_images} + {self.test_images} images in VOC layout: {DATASET}")
        lists = [folder / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS]
        train, test = (path.read_text().split() for path in lists)
        return train, test

    def _run_jobs(self, jobs: RayJobs, cluster: LocalCluster) -> None:
        with self._measure("prepare"):
            for split in SPLITS:
                self._finish(
                    f"prepare-{split}", jobs.submit(*_format_command(PREPARE, split=split))
                )
        with self._measure("propose, stopped and resumed"):
            self._propose(jobs)
        with self._measure("train"):
            self._finish("train", jobs.submit(*_format_command(TRAIN)))
        with self._measure("detect, a node killed"):
            parts = max(1, self.test_images // SHARD_SIZE // 3)
            words, output = _format_command(DETECT), f"{RUN}/detections"
            submission, committed = lose_node(jobs, cluster, output, *words, parts=parts)
            self.outcome.parts_at_kill = committed
            self._finish("detect", submission)
        with self._measure("another node joins"):
            self._say(f"{cluster.add_node().name} with one core")
        with self._measure("analyze"):
            self._finish("analyze", jobs.submit(*_format_command(ANALYZE)))

    def _propose(self, jobs: RayJobs) -> None:
        words, output = _format_command(PROPOSE), f"{RUN}/proposals/train"
        job_id = submit_without_waiting(jobs, output, *words, parts=1)
        self._echo("# its first shards are committed: stop it")
        stopped, log = stop_job(jobs, output, job_id)
        self._keep_log("propose-stopped", log)
        self._echo("# the same command does the rest")
        resumed = jobs.submit(*words)
        self._finish("propose", resumed)
        self.outcome.stopped_job = replace(stopped, resumed_from=find_resumed_from(resumed))

    def _check(self, train_ids: Sequence[str], test_ids: Sequence[str]) -> None:
        """Count the parts in the store and their rows; copy the metrics and the report to the disk."""
        self.outcome.outputs = [
            count_rows(f"{RUN}/proposals/train", train_ids),
            count_rows(f"{RUN}/detections", test_ids),
        ]
        self.outcome.parts = len(list_parts(f"{RUN}/detections"))
        store, _ = storage.get_filesystem(RUN)
        store.get(f"{RUN}/analysis/report/", f"{self.folder}/report/", recursive=True)
        metrics = storage.read(f"{RUN}/analysis/metrics.json")
        (self.folder / "metrics.json").write_bytes(metrics)
        self.outcome.voc07_map50 = json.loads(metrics)["voc07_map50"]

    def _finish(self, name: str, submission: Submission) -> None:
        path = self._keep_log(name, submission.text)
        if submission.process.returncode:
            raise JobFailed(
                f"{name}: exit code {submission.process.returncode}; its log is {path}, and ends with\n"
                + submission.text[-1500:]
            )

    def _keep_log(self, name: str, text: str) -> Path:
        number = len(list((self.folder / "logs").iterdir())) + 1
        path = self.folder / "logs" / f"{number}-{name}.log"
        path.write_text(text)
        return path

    @contextlib.contextmanager
    def _measure(self, stage: str) -> Iterator[None]:
        self.console.rule(f"[bold]{stage}", align="left")
        start = perf_counter()
        yield
        self.outcome.stage_seconds[stage] = round(perf_counter() - start, 1)

    def _echo(self, line: str) -> None:
        """Show a command, a comment on it, or what a job prints."""
        self._say(line, style={"$ ": "bold", "# ": "dim"}.get(line[:2], ""))

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)
