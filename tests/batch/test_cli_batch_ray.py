"""`impasto batch --engine ray`: how work is shared out; on a cluster the same files, though a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli_support import QUICK, Shell, by_gatys, make_backbone, make_picture, open_shell, use_one_thread
from impasto.batch import ray_engine
from impasto.batch.plan import BatchPlan, make_plan
from impasto.batch.ray_engine import Cluster, RayOrder, RayWorker, Tries, pack, pack_all, unpack, unpack_all
from impasto.errors import ImpastoError
from impasto.images.files import write_image
from impasto.runs.record import Recipe
from impasto.runs.remote_files import to_path
from impasto.stylizers.styles import built_in_styles

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
PHOTOS = 12


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A folder of photos."""
    monkeypatch.chdir(tmp_path)
    shell = open_shell(tmp_path, make_backbone(tmp_path / "slim.safetensors"), capsys)
    Path("photos").mkdir()
    for seed in range(PHOTOS):
        write_image(make_picture(seed), f"photos/{seed}.png")
    return shell


def make(words: list[str], **more: Any) -> BatchPlan:
    options = {"backbone_weights": "slim.safetensors", "steps": 2, "octaves": 0}
    base = Recipe.parse({"method": "gatys", "options": options}, "test")
    return make_plan(base, words, [], Path("out"), **more)


def order(plan: BatchPlan, **more: Any) -> RayOrder:
    sent = dict(ray_engine._read_all([path for style in plan.styles for path in style]))
    more = {"begin": Tries().begin, **more}
    given = {"recipe": plan.base, "device": "cpu", "runtime": "torch", "output": pack(plan.output), "record": True}
    return RayOrder(**{**given, "force": False, "run": "0" * 8, "folder": os.getcwd(), "sent": sent, **more})


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# --- how work is shared out


def test_paths_are_understood_elsewhere(shell: Shell) -> None:
    card = built_in_styles()["udnie"]
    assert pack(card) == "built-in udnie"
    assert unpack(pack(card)) == card
    url = to_path("s3://bucket/a.png")
    assert unpack(pack(url)) == url
    assert unpack(pack(Path("udnie"))) == Path("udnie")  # a style that a method has learned
    assert unpack(pack(Path("photos/4.png"))) == shell.folder / "photos/4.png"


def test_tasks_hold_all_pictures_and_each_photo_once(shell: Shell) -> None:
    plan = make(["photos", "s*.*g"])
    items = plan.items()
    for workers, count in ((1, 4), (2, 12), (8, 12)):
        tasks = pack_all(items, workers)
        assert len(tasks) == count
        found = [pair for task in tasks for pair in unpack_all(task, plan.base)]
        assert [number for number, _ in found] == list(range(2 * PHOTOS))
        assert [item.target for _, item in found] == [item.target.absolute() for item in items]
        assert {len(list(unpack_all(task, plan.base))) % 2 for task in tasks} == {0}
    assert pack_all([], 2) == []


@pytest.mark.parametrize(
    ("nodes", "asked", "found"),
    [
        ([{"CPU": 16}], (None, "auto", "torch"), (4, {"num_cpus": 4})),
        ([{"CPU": 2}], (None, "auto", "torch"), (1, {"num_cpus": 2})),
        ([{"CPU": 2}, {"CPU": 2}], (None, "cpu", "torch"), (1, {"num_cpus": 2})),  # no node has four
        ([{"CPU": 2}, {}], (9, "cpu", "torch"), (2, {"num_cpus": 1})),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 2}], (None, "auto", "torch"), (3, {"num_gpus": 1})),
        ([{"CPU": 8, "GPU": 1}], (2, "auto", "onnxruntime"), (2, {"num_cpus": 4})),
        ([{"CPU": 8, "GPU": 1}], (2, "cpu", "torch"), (2, {"num_cpus": 4})),
    ],
)
def test_the_cluster_is_shared_out(nodes: list[dict[str, Any]], asked: Any, found: Any) -> None:
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    gone = {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}
    assert ray_engine._share_out([*alive, gone], *asked) == found


def test_a_cluster_without_what_is_asked_for() -> None:
    with pytest.raises(ImpastoError, match="no GPU"):
        ray_engine._share_out([{"Alive": True, "Resources": {"CPU": 2}}], None, "cuda", "torch")
    with pytest.raises(ImpastoError, match="no cores"):
        ray_engine._share_out([{"Alive": False, "Resources": {"CPU": 2}}], None, "auto", "torch")


# --- a worker


def test_a_worker_makes_the_same_files(shell: Shell) -> None:
    plan = make(["photos/[12].png", "sea.png"])
    shell.run("batch", "photos/[12].png", "sea.png", "-o", "one", "--backbone-weights", "slim.safetensors", *QUICK)
    Path("out").mkdir()
    ordered = order(plan)
    (name,) = ordered.sent
    assert ordered.sent[name] == Path("sea.png").read_bytes()
    Path("sea.png").rename("gone.png")  # as if the worker ran on another machine
    tasks = pack_all(plan.items(), 1)
    reports = [json.loads(text) for text in RayWorker(ordered)({"task": tasks})["reports"]]
    assert [number for report in reports for number, _ in report] == [0, 1]
    assert reports[0][0][1]["worker"].endswith(f":{os.getpid()}")
    assert files("out") == files("one")


def test_what_a_dead_worker_wrote_stays(shell: Shell) -> None:
    plan = make(["photos/1.png", "sea.png"])
    Path("out").mkdir()
    Path("out/1-sea.png").write_bytes(b"mine")
    (task,) = pack_all(plan.items(), 1)
    ((_, report),) = json.loads(RayWorker(order(plan))({"task": [task]})["reports"][0])
    assert (report["seconds"], files("out")) == (0.0, {"1-sea.png": b"mine"})
    RayWorker(order(plan, force=True))({"task": [task]})
    assert files("out")["1-sea.png"] != b"mine"


def test_a_photo_that_kills_its_workers_is_given_up(shell: Shell) -> None:
    plan = make(["photos/1.png", "sea.png"])
    Path("out").mkdir()
    (task,) = pack_all(plan.items(), 1)
    begin = Tries().begin
    assert [begin(task) for _ in range(4)] == [1, 2, 3, 4]
    ((_, report),) = json.loads(RayWorker(order(plan, begin=begin))({"task": [task]})["reports"][0])
    assert "fewer --workers" in report["error"]
    assert files("out") == {}


def test_a_worker_tells_what_it_lacks(shell: Shell) -> None:
    plan = make(["photos/1.png", "sea.png"])
    base = plan.base.model_copy(update={"options": {"backbone_weights": "/nowhere/slim.safetensors"}})
    (task,) = pack_all(plan.items(), 1)
    ((_, report),) = json.loads(RayWorker(order(plan, recipe=base))({"task": [task]})["reports"][0])
    assert "slim.safetensors" in report["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "spark"], "--engine is local or ray, not 'spark'"),
        (["--workers", "2"], "--workers goes with --engine ray"),
        (["--engine", "ray", "--watch"], "--watch goes with --engine local"),
        (["--engine", "ray", "--steps", "many"], "steps"),
    ],
)
def test_mistakes(shell: Shell, words: list[str], message: str) -> None:
    before = shell.names()
    done = shell.run("batch", "photos", "sea.png", "-o", "out", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert shell.names() == before


def test_without_ray_it_says_what_to_install(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = shell.run("batch", "photos", "sea.png", "-o", "out", "--engine", "ray", *QUICK)
    assert (done.code, "pip install 'impasto[ray]'" in done.err, Path("out").exists()) == (2, True, False)


# --- the engine, with a data set of a few lines in place of Ray's


class FakeSet:
    """As Ray's data set, here; the last task's workers all die."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.rows = rows

    def map_batches(self, worker: Any, *, fn_constructor_args: tuple[Any, ...], **_: Any) -> FakeSet:
        one = worker(*fn_constructor_args)
        return FakeSet([{"reports": one({"task": [row["task"]]})["reports"][0]} for row in self.rows[:-1]])

    def iter_rows(self) -> list[dict[str, str]]:
        return self.rows


def test_what_no_worker_could_make_has_failed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(
        Cluster,
        "_painted",
        lambda self, tasks: FakeSet([{"task": t} for t in tasks]).map_batches(
            RayWorker, fn_constructor_args=(self.order,)
        ),
    )
    node = {"Alive": True, "Resources": {"CPU": 4}}

    monkeypatch.setattr(ray_engine, "_count_tries", lambda ray: Tries().begin)

    class Ray:
        nodes = staticmethod(lambda: [node])
        shutdown = staticmethod(lambda: None)

    monkeypatch.setattr(ray_engine, "_connect", Ray)
    words = ("batch", "photos/1*.png", "sea.png", "-o", "out", "--json", "--engine", "ray", "--workers", "4")
    done = shell.run(*words, "--backbone-weights", "slim.safetensors", *QUICK)
    statuses = [json.loads(line)["status"] for line in done.out.splitlines()]
    assert (done.code, statuses) == (1, ["done"] * 2 + ["failed", "summary"])
    assert "fewer --workers" in done.err


# --- a cluster of this machine


def run_ray(words: list[str], **more: str) -> subprocess.Popen[str]:
    line = ["batch", *words, "--json", "--engine", "ray", "--workers", "2", "--backbone-weights", "slim.safetensors"]
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"OMP_NUM_THREADS": "1", **more}
    surroundings["RAY_worker_niceness"] = "0"  # or a busy machine never gives them a turn
    return subprocess.Popen(
        [sys.executable, "-m", "impasto", *by_gatys(line)], stdout=subprocess.PIPE, text=True, env=surroundings
    )


@pytest.mark.slow
def test_a_run_survives_the_death_of_a_worker(shell: Shell) -> None:
    pytest.importorskip("ray")
    effort = ["--steps", "12", "--octaves", "0"]
    with run_ray(["photos", "sea.png", "-o", "out", *effort]) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        killed = first["worker"]
        os.kill(int(killed.rsplit(":", 1)[1]), signal.SIGKILL)
        others = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    assert others[-1] | {"seconds": 0} == {
        "status": "summary",
        "left_out": {},
        "done": PHOTOS,
        "skipped": 0,
        "failed": 0,
        "interrupted": False,
        "seconds": 0,
    }
    assert {line["worker"] for line in others[:-1]} - {killed}
    shell.run("batch", "photos", "sea.png", "-o", "one", *effort, "--backbone-weights", "slim.safetensors").good()
    assert files("out") == files("one")


@pytest.mark.slow
def test_photos_and_results_may_lie_elsewhere(shell: Shell) -> None:
    pytest.importorskip("ray")
    where = {"FSSPEC_DIR": json.dumps({"path": str(shell.folder), "target_protocol": "file"})}
    words = ["dir://photos/1*.png", "dir://sky.jpg", "-o", "dir://out", "--format", "jpg", *QUICK]
    with run_ray(words, **where) as process:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    names = ["1", "10", "11"]
    assert sorted(line["output"] for line in lines[:-1]) == sorted(f"dir://out/{name}-sky.jpg" for name in names)
    there = files("out")
    assert sorted(there) == sorted(f"{name}-sky.jpg{end}" for name in names for end in ("", ".json"))
    shell.run(
        "batch",
        "photos/1*.png",
        "sky.jpg",
        "-o",
        "one",
        "--format",
        "jpg",
        "--backbone-weights",
        "slim.safetensors",
        *QUICK,
    ).good()
    here = files("one")
    assert all(there[name] == here[name] for name in here if name.endswith(".jpg"))
    record = json.loads(there["1-sky.jpg.json"])
    assert record["content"] == {"file": "1.png"}
    assert json.loads(here["1-sky.jpg.json"])["content"] == {"file": "1.png"}
