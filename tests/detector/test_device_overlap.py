"""Work on a batch's results follows the batches in order, whether it overlaps with the next or not."""

import pytest
import torch

from pipeline.detector.device_overlap import OverlappedWork


class FakeStream:
    """Notes what it waits for."""

    def __init__(self, *_, **__):
        self.waited_for = []

    def wait_event(self, event):
        self.waited_for.append(event)


class FakeEvent:
    """Notes that it was recorded."""

    def record(self, stream):
        self.stream = stream


@pytest.fixture
def on_fake_gpu(monkeypatch):
    used = []

    class Entered:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            used.append(self.stream)

        def __exit__(self, *_):
            used.append(None)

    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "stream", Entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "main")
    return used


def test_on_a_cpu_the_work_is_done_at_once():
    done = []
    work = OverlappedWork(torch.device("cpu"), done.append)
    for number in range(3):
        work.add(number)
        assert done == list(range(number + 1))
    work.finish()
    assert done == [0, 1, 2]


def test_on_a_gpu_the_work_is_one_batch_late_on_a_stream_that_waits_for_that_batch(on_fake_gpu):
    done = []
    work = OverlappedWork(
        torch.device("cuda"), lambda number: done.append((number, on_fake_gpu[-1]))
    )
    work.add(0)
    assert done == []
    work.add(1)
    work.add(2)
    assert [number for number, _ in done] == [0, 1]
    work.finish()
    assert [number for number, _ in done] == [0, 1, 2]
    work.finish()
    assert len(done) == 3
    (stream,) = {stream for _, stream in done}
    assert isinstance(stream, FakeStream)
    assert len(stream.waited_for) == len(set(stream.waited_for)) == 3
    assert all(event.stream == "main" for event in stream.waited_for)
