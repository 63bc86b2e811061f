"""`impasto bench` and `impasto doctor`: the speed here, and what is installed here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from impasto.cli import flags
from impasto.commands import arguments, early_checks, first_look, terminal
from impasto.errors import OptionError, nearest

ManyMethods = Annotated[
    str | None, typer.Option("--methods", "-m", metavar="M1,M2,...", help="Default: all one-pass methods.")
]
SizesFlag = Annotated[str, typer.Option(metavar="N1,N2,...", help="Sides of the squares.")]
PrecisionsFlag = Annotated[str, typer.Option(metavar="P1,P2,...", help="fp32, bf16, auto.")]
RuntimesFlag = Annotated[str, typer.Option(metavar="R1,R2,...", help="torch, onnxruntime, openvino, auto.")]
RoundsFlag = Annotated[int, typer.Option(metavar="N", min=1, help="Number of rounds of which medians are taken.")]
ThreadsFlag = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads of torch; default: its own choice.")]
PRECISIONS = ("fp32", "bf16", "auto")
MarkdownFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there, too.")]


def bench(
    ctx: typer.Context,
    methods: ManyMethods = None,
    sizes: SizesFlag = "512,1024",
    precisions: PrecisionsFlag = "auto,fp32",
    runtimes: RuntimesFlag = "torch",
    rounds: RoundsFlag = 5,
    threads: ThreadsFlag = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="Weights file of the one method.")] = None,
    device: flags.DeviceFlag = "auto",
    markdown: MarkdownFlag = None,
    force: flags.ForceFlag = False,
    json: flags.JsonFlag = False,
) -> None:
    """Time the methods, in ratio to one pass of VGG-19 to relu4_1 in fp32 at 512x512."""
    _check(methods, sizes, precisions, runtimes)
    if weights is not None:
        early_checks.check_weights(Path(weights))
        if methods is None or "," in methods:
            raise OptionError(f"--weights {weights} is for one method: name it with -m")
        early_checks.check_trained(Path(weights), methods)
    if markdown is not None:
        arguments.check_target(markdown, force)
    from impasto.evaluation import bench as benching
    from impasto.evaluation.timing import to_markdown
    from impasto.feedforward.runtimes import AUTO
    from impasto.files import write_atomically
    from impasto.methods import find_method, list_methods
    from impasto.runs import runtime_choice
    from impasto.runs.painting import pick_device

    names = methods.split(",") if methods else [name for name in list_methods() if find_method(name).one_pass]
    benching.surroundings(threads)
    best = runtime_choice.quickest(runtime_choice.recall())
    chosen = list(dict.fromkeys(best if name == AUTO else name for name in runtimes.split(",")))
    found = benching.bench(
        names,
        [int(size) for size in sizes.split(",")],
        precisions.split(","),
        device=pick_device(device, ",".join(chosen)),
        runtimes=chosen,
        rounds=rounds,
        options={"weights": weights} if weights else {},
    )
    table = to_markdown(found["rows"])
    if markdown is not None:
        write_atomically(markdown, (table + "\n").encode())
    terminal.print_json(found) if json else terminal.say(table or "nothing to time")
    for name, reason in found["missing"].items():
        terminal.say(f"no {name}: {reason}", err=True)


def _check(methods: str | None, sizes: str, precisions: str, runtimes: str) -> None:
    """Check the words of `impasto bench` before torch is loaded; raises ImpastoError."""
    for name in methods.split(",") if methods else []:
        first_look.check_method(name)
    if not all(size.isdigit() and 16 <= int(size) <= 20_000 for size in sizes.split(",")):
        raise OptionError(f"--sizes are whole numbers from 16 to 20000, separated by commas, not {sizes!r}")
    for name in precisions.split(","):
        if name not in PRECISIONS:
            raise OptionError(f"--precisions are {', '.join(PRECISIONS)}, not {name!r}{nearest(name, PRECISIONS)}")
    for name in runtimes.split(","):
        early_checks.check_runtime(name)


def doctor(json: flags.JsonFlag = False) -> None:
    """Show what this machine has, what is used, what is missing and how to get it."""
    from impasto.commands.doctor import examine

    findings = examine()
    if json:
        terminal.print_json([vars(finding) for finding in findings])
        return
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        terminal.say(f"{finding.mark} {finding.what:<{width}}  {finding.found}")
        if finding.remedy:
            terminal.say(f"   {'':<{width}}  {finding.remedy}")
