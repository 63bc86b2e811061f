"""The work of `impasto transfer fit`: read the pictures, train the classifier, test it, write the report."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from impasto.commands import terminal
from impasto.commands import train as training_run
from impasto.commands.early_checks import check_run_folder
from impasto.commands.terminal import PAUSE, count
from impasto.errors import OptionError
from impasto.files import write_atomically
from impasto.images.files import write_image
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.classifiers import Classifier, Head, attach_head, cut, last_layer, load_classifier
from impasto.runs.painting import pick_device
from impasto.training.loop import Task
from impasto.transfer.class_folders import ClassFolders, Sample, count_by_class
from impasto.transfer.examples import FEATURES, Examples, FeatureStore, Labels, read_examples
from impasto.transfer.report import FitReport, judge
from impasto.transfer.tasks import FinetuneTask, FitOptions, LinearTask, make_header

log = logging.getLogger(__name__)
REPORT, TABLE, ERRORS = "report.json", "report.md", "errors.png"


@dataclass(frozen=True)
class FitPlan:
    """A training that was checked: its pictures, its network and layer, and the folder for the results."""

    options: FitOptions
    folders: ClassFolders
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    body: Backbone
    layer: str
    folder: Path
    device: str

    @property
    def facts(self) -> dict[str, Any]:
        """The plan for --json: output, options, layer, and the number of pictures by class."""
        classes = self.folders.classes
        return {
            "output": str(self.folder / "classifier.safetensors"),
            "options": self.options.model_dump(mode="json"),
            "layer": self.layer,
            "train": count_by_class(self.train, classes),
            "test": count_by_class(self.test, classes),
        }


def plan(
    folders: ClassFolders, options: FitOptions, output: Path | None, device: str, *, resume: bool, force: bool
) -> FitPlan:
    """Split the pictures and load the network; raises ImpastoError before anything is written."""
    where = pick_device(device)
    folder = check_run_folder(output, resume=resume, force=force)
    if options.mode != "features" and options.side < options.crop:
        raise OptionError(f"--side {options.side} is smaller than --crop {options.crop}")
    train, test = folders.split(options.test_share, options.seed)
    backbone = load_backbone(options.backbone, weights=options.backbone_weights or None)
    layer = options.layer or last_layer(backbone)
    body = cut(backbone, layer).to(where)
    log.info("%d classes, %d pictures to learn from, %d to test", len(folders.classes), len(train), len(test))
    return FitPlan(options, folders, train, test, body, layer, folder, where)


def dry_run(plan: FitPlan) -> dict[str, Any]:
    """Say what would be done, for --dry-run; returns what --json prints."""
    terminal.say(f"dry run: {plan.options.mode}, {plan.options.steps} steps; nothing was written", err=True)
    return {**plan.facts, "dry_run": True}


def run(plan: FitPlan, *, resume: bool, log: bool, quiet: bool) -> dict[str, Any]:
    """Train, test and write the report; returns what --json prints.

    Ctrl-C stops it; the same command continues with what was finished. Raises ImpastoError.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        examples = _read(plan, quiet)
    except KeyboardInterrupt:
        kept = (
            f": {plan.folder / FEATURES} is kept; the same command goes on" if plan.options.mode == "features" else ""
        )
        terminal.say(f"interrupted{kept}", err=True)
        raise typer.Exit(130) from None
    pictures = examples, Labels(examples.items, labels=examples.labels)
    torch.manual_seed(plan.options.seed)
    task = _build(plan, examples)
    learned = training_run.run(task, pictures, plan.options, plan.folder, resume=resume, log=log)
    weights = plan.options.backbone_weights or None
    classifier = load_classifier(plan.facts["output"], weights=weights, device=plan.device)
    with count("testing", len(plan.test), quiet, pause=PAUSE) as shown:
        report = judge(classifier, plan.test, shown.reach)
    _write(report, classifier, plan)
    terminal.say(report.to_markdown(), err=True, nl=False) if not quiet else None
    facts: dict[str, Any] = {k: learned[k] for k in ("steps", "losses", "seconds", "skipped") if k in learned}
    return {**plan.facts, **facts, **report.to_json()}


def _read(plan: FitPlan, quiet: bool) -> Examples:
    options = plan.options
    if options.mode != "features":
        with count("reading", len(plan.train), quiet, pause=PAUSE) as shown:
            return read_examples(plan.train, options.side, shown.reach)
    store = FeatureStore(plan.body, plan.layer, options.grid, options.crop, plan.folder / FEATURES)
    with count("computing features", len(plan.train), quiet, pause=PAUSE) as shown:
        return store.compute(plan.train, shown.reach)


def _build(plan: FitPlan, examples: Examples) -> Task:
    options, classes = plan.options, plan.folders.classes
    header = make_header(options, plan.body, plan.layer, classes)
    if options.mode == "features":
        return LinearTask(header, torch.stack([item[0] for item in examples.items]), options.weight_decay)
    side = options.crop
    with torch.no_grad():
        probe = plan.body(torch.zeros(1, 3, side, side, device=plan.device), {plan.layer})[plan.layer]
    network = attach_head(plan.body, plan.layer, Head(probe.shape[1], len(classes), options.grid))
    return FinetuneTask(header, network, options)


def _write(report: FitReport, classifier: Classifier, plan: FitPlan) -> None:
    facts = {**plan.facts, **report.to_json(), "test_files": [str(sample.path) for sample in plan.test]}
    write_atomically(plan.folder / REPORT, (json.dumps(facts, ensure_ascii=False, indent=2) + "\n").encode())
    write_atomically(plan.folder / TABLE, report.to_markdown().encode())
    sheet = report.error_sheet(classifier)
    if sheet is not None:
        write_image(sheet, plan.folder / ERRORS)
    else:
        (plan.folder / ERRORS).unlink(missing_ok=True)
