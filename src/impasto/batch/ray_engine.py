"""`impasto batch --engine ray`: workers of a Ray cluster paint the photos; each loads the model once.

A worker takes a few photos at a time and paints them like a run without Ray. If it crashes, another worker takes them
and skips those that are written already. No file is ever written in part.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO, cast

from impasto.batch.painter import Painter
from impasto.batch.pipeline import Outcomes, Pipeline, by_photo, explain, new_run
from impasto.batch.plan import BatchPlan, Item
from impasto.errors import ImpastoError
from impasto.files import is_remote
from impasto.progress import Step
from impasto.runs.record import Recipe, is_bare
from impasto.runs.remote_files import names_in
from impasto.stylizers.styles import built_in_styles

CORES = 4
"""Cores of a worker without a GPU, if the number of workers is not given."""
MOST_PHOTOS = 8
"""Photos that a worker takes at a time."""
ROUNDS = 4
"""Least number of tasks per worker, so that all end at about the same time."""
MOST_TRIES = 4
"""How often a task is tried if its workers crash; Ray itself would try forever."""
BUILT_IN = "built-in "
WRITTEN_BEFORE: dict[str, Any] = {"record": None, "seconds": 0.0, "losses": {}, "interrupted": False}
DIED = "every worker that tried it died, most likely for lack of memory: try fewer --workers or a smaller --size"


@dataclass(frozen=True)
class RayOrder:
    """The settings of every worker.

    folder: the current folder, which the worker also enters if it has it; sent: the bytes of styles and masks; begin:
    called when a task begins, returns how often it has begun.
    """

    recipe: Recipe
    device: str
    runtime: str
    output: str
    record: bool
    force: bool
    run: str
    folder: str
    sent: dict[Path, bytes]
    begin: Callable[[str], int]


class Cluster:
    """The engine that paints on a Ray cluster. Raises ImpastoError if no node can run the plan."""

    def __init__(self, plan: BatchPlan, device: str, runtime: str, workers: int | None) -> None:
        self.run = new_run()
        named = Painter(plan.base, "cpu", runtime).model.name  # reports mistakes before anything starts
        self.ray = _connect()
        self.workers, self.share = _share_out(self.ray.nodes(), workers, device, runtime)
        self.title = f"with {named} by {self.workers} of Ray's workers"
        masks = tuple(Path(pack(path)) for path in plan.base.masks)
        styles = {path for style in plan.styles for path in style}
        self.order = RayOrder(
            recipe=plan.base.model_copy(update={"masks": masks, "content": None, "styles": ()}),
            device=device,
            runtime=runtime,
            output=pack(plan.output),
            record=plan.record,
            force=plan.force,
            run=self.run,
            folder=os.getcwd(),
            sent=dict(_read_all([*styles, *plan.base.masks])),
            begin=_count_tries(self.ray),
        )

    def paint(self, items: Sequence[Item], outcomes: Outcomes) -> None:
        """Paint all of `items`."""
        left = dict(enumerate(items))
        try:
            with contextlib.redirect_stdout(cast(TextIO, _SplitOutput())):
                for row in self._painted(pack_all(items, self.workers)).iter_rows():
                    for number, report in json.loads(row["reports"]):
                        _pass_on(left.pop(number), report, outcomes)
            for item in left.values():
                outcomes.fail(item, DIED)
        finally:
            with contextlib.redirect_stdout(sys.stderr):  # Ray's last messages
                self.ray.shutdown()

    def _painted(self, tasks: list[str]) -> Any:
        """Return Ray's data set of the results of `tasks`."""
        data = self.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # failures are reported, and the other pictures are painted
        return data.from_items([{"task": task} for task in tasks], override_num_blocks=len(tasks)).map_batches(
            RayWorker,
            fn_constructor_args=(self.order,),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=self.workers),
            **self.share,
        )


class RayWorker:
    """One of Ray's workers: paints tasks that `pack_all` made; returns a JSON list of reports for each."""

    def __init__(self, order: RayOrder) -> None:
        with contextlib.suppress(OSError):
            os.chdir(order.folder)
        self.order = order
        self.name = f"{platform.node()}:{os.getpid()}"
        self.broken = ""
        try:
            self.painter = Painter(order.recipe, order.device, order.runtime, order.sent)
        except Exception as error:  # otherwise Ray would try forever
            self.broken = f"{self.name}: {explain(error)}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Paint the pictures of the tasks."""
        return {"reports": [json.dumps(self._paint(str(task))) for task in batch["task"]]}

    def _paint(self, task: str) -> list[tuple[int, dict[str, Any]]]:
        items = dict(unpack_all(task, self.order.recipe))
        reports = _Reports(self.name, {item.target: number for number, item in items.items()})
        there = frozenset() if self.order.force else names_in(unpack(self.order.output))
        broken = DIED if self.order.begin(task) > MOST_TRIES else self.broken
        todo = []
        for item in items.values():
            if item.is_in(there, self.order.record):
                reports.succeed(item, WRITTEN_BEFORE)  # written by a worker that crashed before its report
            elif broken:
                reports.fail(item, broken)
            else:
                todo.append(item)
        if todo:
            with Pipeline(self.painter, reports, record=self.order.record, run=self.order.run) as work:
                work.paint_all(by_photo(todo))
        return reports.found


class Tries:
    """Counts how often tasks have been begun."""

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()

    def begin(self, task: str) -> int:
        """Return how often `task` has begun, including this time."""
        self.tasks[task] += 1
        return self.tasks[task]


class _SplitOutput:
    """Standard output while Ray runs: the messages of its own thread go to stderr."""

    def __init__(self) -> None:
        self.out, self.main = sys.stdout, threading.current_thread()

    def write(self, text: str) -> int:
        return (self.out if threading.current_thread() is self.main else sys.stderr).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)


class _Reports:
    """Collects the results of pictures, by their numbers."""

    def __init__(self, worker: str, numbers: dict[Path, int]) -> None:
        self.worker, self.numbers = worker, numbers
        self.found: list[tuple[int, dict[str, Any]]] = []

    def succeed(self, item: Item, report: dict[str, Any]) -> None:
        self.found.append((self.numbers[item.target], {**report, "worker": self.worker}))

    def fail(self, item: Item, reason: str) -> None:
        self.found.append((self.numbers[item.target], {"error": reason}))

    def within(self, step: Step) -> None:
        pass


def open_cluster(plan: BatchPlan, device: str, runtime: str, *, workers: int | None) -> Cluster:
    """Return the engine that uses Ray. Raises ImpastoError."""
    return Cluster(plan, device, runtime, workers)


def pack_all(items: Sequence[Item], workers: int) -> list[str]:
    """Return `items`, numbered, as tasks for Ray in JSON; each has few enough photos that all workers get some."""
    groups = [list(group) for _, group in groupby(enumerate(items), lambda pair: pair[1].content)]
    most = max(1, min(MOST_PHOTOS, len(groups) // (workers * ROUNDS)))
    tasks = []
    for start in range(0, len(groups), most):
        pictures = [pair for group in groups[start : start + most] for pair in group]
        tasks.append(json.dumps([(number, *_pack_item(item)) for number, item in pictures]))
    return tasks


def _pack_item(item: Item) -> tuple[str, list[str], str]:
    return pack(item.content), list(map(pack, item.recipe.styles)), pack(item.target)


def unpack_all(task: str, recipe: Recipe) -> Iterator[tuple[int, Item]]:
    """Yield the numbered pictures of a task; recipe: their common settings."""
    for number, content, styles, target in json.loads(task):
        named = {"content": unpack(content), "styles": tuple(map(unpack, styles))}
        yield number, Item(recipe.model_copy(update=named), unpack(target))


def pack(path: Path) -> str:
    """Return a path as text that works on other machines with the same folders."""
    if built_in_styles().get(path.stem) == path:
        return f"{BUILT_IN}{path.stem}"
    return path.as_posix() if is_bare(path) or is_remote(path) else path.absolute().as_posix()


def unpack(text: str) -> Path:
    """Return the path of a text from `pack`."""
    return built_in_styles()[text.removeprefix(BUILT_IN)] if text.startswith(BUILT_IN) else Path(text)


def _pass_on(item: Item, report: dict[str, Any], outcomes: Outcomes) -> None:
    if "error" in report:
        outcomes.fail(item, report["error"])
    else:
        outcomes.succeed(item, report)


def _read_all(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    """Yield the bytes of files that workers may lack, by their packed paths; the worker reports unreadable ones."""
    for path in paths:
        packed = pack(path)
        if not (packed.startswith(BUILT_IN) or is_bare(path) or is_remote(path)):
            with contextlib.suppress(OSError):
                yield Path(packed), path.read_bytes()


def _connect() -> Any:
    """Return Ray, connected to the cluster of RAY_ADDRESS or `ray start`, or to a new one for this run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImpastoError("--engine ray needs Ray: pip install 'impasto[ray]'") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except Exception as error:  # its exceptions have no common base
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImpastoError(f"Ray's cluster can't be reached: {reason}") from None
    return ray


def _count_tries(ray: Any) -> Callable[[str], int]:
    """Return a `Tries.begin` that all workers share."""
    shared = ray.remote(num_cpus=0, max_restarts=-1)(Tries).remote()

    def begin(task: str) -> int:
        import ray

        return int(ray.get(shared.begin.remote(task)))

    return begin


def _share_out(
    nodes: Sequence[dict[str, Any]], workers: int | None, device: str, runtime: str
) -> tuple[int, dict[str, int]]:
    """Return the number of workers, and the GPUs or cores that each needs; raises ImpastoError if there are none."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    gpus, cores = (int(sum(node.get(kind, 0) for node in there)) for kind in ("GPU", "CPU"))
    if gpus and runtime == "torch" and device in ("auto", "cuda"):
        return min(workers or gpus, gpus), {"num_gpus": 1}
    if device == "cuda" or not cores:
        raise ImpastoError(f"Ray's cluster has no {'GPU' if device == 'cuda' else 'cores'}; see `ray status`")
    count = min(workers or max(1, cores // CORES), cores)
    widest = int(max(node.get("CPU", 0) for node in there))
    return count, {"num_cpus": max(1, min(widest, cores // count))}
