"""Workers as processes: they hang, crash and run out of memory, and the server goes on and says what is true."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from impasto.errors import ImpastoError
from impasto.server import wire
from impasto.server.job import Job, TaskData
from impasto.server.jobs import JobQueue
from impasto.server.limits import Closing, Limits, TooMuch, WorkerFault
from impasto.server.worker import ProcessWorker, SafeFormatter, run_process
from server_support import wait_until
from stubborn_worker import make_stubborn

SECONDS = 60.0
"""A machine may be slow; what is expected takes fractions of a second."""


def open_queue(**limits: float) -> JobQueue:
    queue = JobQueue(["cpu"], Limits(**limits), lambda device, limits: ProcessWorker(run_process, make_stubborn))
    assert queue.wait_until_ready(SECONDS)
    return queue


@pytest.fixture(scope="module")
def queue() -> Iterator[JobQueue]:
    queue = open_queue(stop_seconds=0.2)
    yield queue
    queue.close()


def end(job: Job) -> Job:
    job.finished.result(SECONDS)
    return job


def say(queue: JobQueue, text: str = "here") -> Job:
    return end(queue.submit(TaskData({"type": "say", "text": text}, (b"a", b"", b"b" * 1_000_000))))


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a fork server")
@pytest.mark.parametrize(("length", "way"), [(75, "forkserver"), (76, "spawn")])
def test_a_fork_server_needs_a_short_folder(length: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/".ljust(length, "x"))
    monkeypatch.setattr(wire.forkserver, "ensure_running", lambda: None)
    monkeypatch.delenv(wire.START_METHOD, raising=False)
    assert wire.process_context().get_start_method() == way
    monkeypatch.setenv(wire.START_METHOD, "spawn")
    assert wire.process_context().get_start_method() == "spawn"


def test_files_and_facts_cross_both_ways(queue: JobQueue) -> None:
    outcome = say(queue, "päint \x00 \ud800").outcome()
    assert outcome.data == b"a" + b"b" * 1_000_000
    assert (outcome.media_type, outcome.about) == ("text/plain", {"text": "päint \x00 \ud800"})


@pytest.mark.parametrize("unwanted", [False, True])
def test_a_job_that_does_not_hear_is_killed_and_the_next_one_works(queue: JobQueue, unwanted: bool) -> None:
    kills = queue.count()["cpu"]["kills"]
    job = queue.submit(TaskData({"type": "hang"}))
    wait_until(lambda: job.step == 1, SECONDS)
    (queue.forget if unwanted else queue.cancel)(job)
    assert end(job).state == "cancelled"
    assert queue.count()["cpu"]["kills"] == kills + 1
    assert say(queue).state == "done"


def test_a_job_that_hears_is_not_killed(queue: JobQueue) -> None:
    kills = queue.count()["cpu"]["kills"]
    job = queue.submit(TaskData({"type": "obey"}))
    wait_until(lambda: job.step == 1, SECONDS)
    job.seconds = 0.01
    with pytest.raises(TooMuch, match=r"more than 0\.01 s"):
        end(job).outcome()
    assert queue.count()["cpu"]["kills"] == kills


def test_a_worker_that_crashes_is_a_fault_and_one_without_memory_is_not(queue: JobQueue) -> None:
    with pytest.raises(WorkerFault, match="code 3"):
        end(queue.submit(TaskData({"type": "crash"}))).outcome()
    with pytest.raises(TooMuch, match="memory"):
        end(queue.submit(TaskData({"type": "starve"}))).outcome()
    assert say(queue).state == "done"


def test_readiness_tells_the_truth() -> None:
    queue = open_queue(stop_seconds=0.2, max_waiting=1)
    try:
        assert queue.obstacle() == ""
        job = queue.submit(TaskData({"type": "hang"}))
        wait_until(lambda: job.step == 1, SECONDS)
        waiting = queue.submit(TaskData({"type": "say", "text": ""}))
        assert "all places are taken" in queue.obstacle()
        queue.forget(job)
        assert end(waiting).state == "done"
        wait_until(lambda: queue.obstacle() == "", SECONDS)
    finally:
        queue.close()
    assert "shutting down" in queue.obstacle()


def test_closing_ends_a_job_that_hangs_at_once_with_a_word() -> None:
    queue = open_queue(stop_seconds=1000)
    running, waiting = queue.submit(TaskData({"type": "hang"})), queue.submit(TaskData({"type": "hang"}))
    wait_until(lambda: running.step == 1, SECONDS)
    start = time.monotonic()
    queue.close()
    for job in (running, waiting):
        with pytest.raises(Closing, match="shutting down"):
            end(job).outcome()
    assert time.monotonic() - start < SECONDS / 2
    with pytest.raises(Closing):
        queue.submit(TaskData({"type": "hang"}))


def test_a_worker_that_never_starts_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str, limits: Limits) -> ProcessWorker:
        raise OSError("no processes left")

    monkeypatch.setattr("impasto.server.jobs.MOST_FAILURES", 1)
    queue = JobQueue(["cpu"], Limits(), fail)
    try:
        assert not queue.wait_until_ready(SECONDS)
        with pytest.raises(Closing, match="does not start"):
            queue.submit(TaskData({"type": "hang"}))
    finally:
        queue.close()


def test_one_client_does_not_take_all_places(queue: JobQueue) -> None:
    job = queue.submit(TaskData({"type": "hang"}))
    wait_until(lambda: job.step == 1, SECONDS)
    own = [queue.submit(TaskData({"type": "say", "text": ""}), "10.0.0.1") for _ in range(4)]
    with pytest.raises(ImpastoError, match="4 jobs of yours"):
        queue.submit(TaskData({"type": "say", "text": ""}), "10.0.0.1")
    other = queue.submit(TaskData({"type": "say", "text": ""}), "10.0.0.2")
    queue.forget(job)
    assert [end(one).state for one in (*own, other)] == ["done"] * 5


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"blobs": -1}', b'{"blobs": "x"}', b"[" * 100_000])
def test_nonsense_on_the_wire_ends_the_connection(data: bytes) -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send_bytes(data)
    with pytest.raises(OSError, match="can't be read"):
        wire.receive(ours)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_end_with_the_server() -> None:
    worker = ProcessWorker(run_process, make_stubborn)
    assert wire.receive(worker.connection)[0]["type"] == "ready"
    threading.Thread(target=wire.send, args=(worker.connection, {"type": "hang"})).start()
    assert wire.receive(worker.connection)[0]["type"] == "step"
    worker.connection.close()
    wait_until(lambda: not worker.alive(), SECONDS)


def test_what_workers_log_is_safe_to_show() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "no tensor \x1b]0;owned\x07 \u202e", (), None)
    assert SafeFormatter("%(levelname)s: %(message)s").format(record) == "ERROR: no tensor \\x1b]0;owned\\x07 \\u202e"
