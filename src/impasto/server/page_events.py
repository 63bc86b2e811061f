"""Events of the Gradio page: makes orders of its values, shows running jobs, offers files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool

from impasto.errors import ImpastoError
from impasto.server.job import ENDED, Job, tell
from impasto.server.limits import NotReady
from impasto.server.schema import CardRequest, PictureRequest, make_request, served_options
from impasto.server.studio import Studio
from impasto.server.translations import words_for

SHOWN_SIDE = 1600
LOOK_EVERY = 0.3
FILES = ("picture", "record", "card")


@dataclass(frozen=True)
class Knobs:
    """The components of an order, by the names of its fields; options by method and name."""

    common: dict[str, Any] = field(default_factory=dict)
    options: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def components(self) -> list[Any]:
        """Return all components."""
        return [*self.common.values(), *self.options.values()]

    def read(self, values: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the common values, and the chosen method's options that are not the defaults."""
        common = dict(zip(self.common, values, strict=False))
        chosen: dict[str, Any] = {}
        for (method, name), value in zip(self.options, values[len(self.common) :], strict=True):
            default = served_options(method).model_fields[name].default
            if method == common["method"] and value is not None and value != shown(default):
                chosen[name] = value
        return common, chosen


def shown(value: Any) -> Any:
    """Return a default as its component shows it, several values with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


class PagePainter:
    """Handles the buttons."""

    def __init__(self, studio: Studio, knobs: Knobs) -> None:
        self.studio, self.knobs = studio, knobs

    async def paint(self, request: gr.Request, *values: Any) -> AsyncIterator[Any]:
        """Queue a job and show its progress, previews and picture; if the visitor leaves, the job ends."""
        words = words_for(request.headers.get("accept-language"))
        common, options = self.knobs.read(values)
        job: Job | None = None
        with contextlib.ExitStack() as kept:
            try:
                begun, files = await run_in_threadpool(self._begin, common, options, words)
                job = begun
                yield self._show(begun.id, "...", running=True)
                before = await run_in_threadpool(self._photo, kept, files["content"][0], None)
                async for status, preview in self._follow(begun, words):
                    shown = None if preview is None else (before, self._keep(kept, preview, ".jpg"))
                    yield self._show(begun.id, status, shown, running=True)
                shown, status, made = await run_in_threadpool(self._end, kept, begun, files, common, words)
                yield self._show("", status, shown, made)
            except ImpastoError as error:
                yield self._show("", "")
                raise gr.Error(tell(error), print_exception=False) from None
            finally:
                if job is not None:
                    self.studio.queue.forget(job)

    def stop(self, identifier: str) -> None:
        """End the job early; its best picture is the result."""
        with contextlib.suppress(ImpastoError):
            self.studio.queue.cancel(self.studio.queue.find(identifier))

    async def stylize(
        self, photo: str, style: str, strength: float, size: str, method: str, painting: str | None = None
    ) -> AsyncIterator[str]:
        """Paint a photo for gradio_client; if it leaves, the job ends.

        Args:
            photo: file of the photo.
            style: name of a built-in style.
            strength: how much of the style, from 0 to 1.
            size: longer side of the result, or WIDTHxHEIGHT; empty: the photo's own.
            method: name of the method; empty: the one that suits the style.
            painting: file of a painting, instead of a built-in style.
        """
        source = "painting" if painting else "built_in"
        common: dict[str, Any] = {"photo": photo, "source": source, "painting": painting, "built_in": style}
        common |= {"strength": strength, "size": size, "mask": []} | ({"method": method} if method else {})
        job: Job | None = None
        with contextlib.ExitStack() as kept:
            try:
                begun, _ = await run_in_threadpool(self._begin, common, {}, words_for(None))
                job = begun
                await asyncio.wrap_future(begun.finished)
                yield await run_in_threadpool(self._keep, kept, begun.outcome().data, ".png", "painted")
            except ImpastoError as error:
                raise gr.Error(tell(error), print_exception=False) from None
            finally:
                if job is not None:
                    self.studio.queue.forget(job)

    def _begin(
        self, common: dict[str, Any], options: dict[str, Any], words: dict[str, str]
    ) -> tuple[Job, dict[str, tuple[bytes, ...]]]:
        if not common["photo"]:
            raise NotReady(words["no_photo"])
        files: dict[str, tuple[bytes, ...]] = {"content": (Path(common["photo"]).read_bytes(),)}
        given = ("method", "strength", "keep_color", "seed")
        settings: dict[str, Any] = {name: common[name] for name in given if name in common}
        settings |= {"options": options} | ({"size": common["size"].strip()} if common["size"].strip() else {})
        source = common["source"]
        if not common[source]:
            raise NotReady(words["no_style"])
        if source == "built_in":
            settings["styles"] = [common["built_in"]]
        else:
            files[f"{source}s"] = (Path(common[source]).read_bytes(),)
        masks = [mask for mask in map(self.studio.brushed, common["mask"]) if mask is not None]
        files |= {"masks": (masks[-1],)} if masks else {}
        return self.studio.stylize(make_request(PictureRequest, settings, files)), files

    async def _follow(self, job: Job, words: dict[str, str]) -> AsyncIterator[tuple[str, bytes | None]]:
        """Yield the status and the preview of a running job, whenever one changes."""
        last: tuple[Any, ...] = ()
        while job.state not in ENDED:
            place, preview = self.studio.queue.place(job), job.preview()
            if job.state == "waiting":
                status = words["waiting"].format(place)
            else:
                status = words["step"].format(job.step, job.total) if job.total else words["running"]
            share = job.step / job.total if job.total else 0
            if (status, preview) != last:
                fresh = preview if not last or preview != last[1] else None
                last = (status, preview)
                yield f"{status}<br><progress value='{share:.3f}' style='width: 100%'></progress>", fresh
            await asyncio.wait({asyncio.wrap_future(job.finished)}, timeout=LOOK_EVERY)

    def _end(
        self,
        kept: contextlib.ExitStack,
        job: Job,
        files: dict[str, tuple[bytes, ...]],
        common: dict[str, Any],
        words: dict[str, str],
    ) -> tuple[Any, str, dict[str, str]]:
        """Return the pair for the slider, the status, and the files to download."""
        if job.state == "cancelled":
            return None, words["cancelled"], {}
        outcome = job.outcome()
        about = outcome.about
        height, width = about["height"], about["width"]
        picture = self._keep(kept, outcome.data, ".png", "painted")
        record = self._keep(kept, json.dumps(about["record"], ensure_ascii=False, indent=2).encode(), ".json", "record")
        card = self._keep(kept, self._card(files, common), ".safetensors", "style")
        status = words["done"].format(width, height, job.describe()["seconds"])
        if about["interrupted"]:
            status = f"{words['stopped'].format(job.step)}<br>{status}"
        pair = (self._photo(kept, files["content"][0], (height, width)), picture)
        return pair, status, {"picture": picture, "record": record, "card": card}

    def _card(self, files: dict[str, tuple[bytes, ...]], common: dict[str, Any]) -> bytes:
        """Return the card of the chosen style; one is made for a painting."""
        if common["source"] == "built_in":
            return self.studio.card(common["built_in"]).data
        if common["source"] == "card":
            return files["cards"][0]
        order = make_request(CardRequest, {"method": common["method"]}, {"painting": files["paintings"]})
        job = self.studio.extract(order)
        try:
            job.finished.result()
            return job.outcome().data
        finally:
            self.studio.queue.forget(job)

    def _photo(self, kept: contextlib.ExitStack, data: bytes, size: tuple[int, int] | None) -> str:
        """Return the photo for comparison with the result, of that size or small."""
        return self._keep(kept, self.studio.shrink(data, SHOWN_SIDE, size), ".jpg")

    def _keep(self, kept: contextlib.ExitStack, data: bytes, ending: str, name: str = "shown") -> str:
        """Return a file in the studio's folder, kept until the page has copied it elsewhere."""
        folder = self.studio.folder / secrets.token_hex(8)
        folder.mkdir()
        path = folder / f"{name}{ending}"
        path.write_bytes(data)
        kept.callback(folder.rmdir)
        kept.callback(path.unlink)
        return str(path)

    @staticmethod
    def _show(
        job: str, status: str, pair: Any = None, files: dict[str, str] | None = None, *, running: bool = False
    ) -> list[Any]:
        """Return new values of job, status, slider, both buttons and the downloads."""
        ready = [gr.update(value=(files or {}).get(name), interactive=bool(files)) for name in FILES]
        slider = gr.skip() if pair is None else pair
        return [job, status, slider, gr.update(interactive=running), gr.update(interactive=not running), *ready]
