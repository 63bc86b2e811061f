"""The Gradio page: a photo, a style, a few settings, and the result beside the photo (extra: ui)."""

from __future__ import annotations

import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, get_origin

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from pydantic.fields import FieldInfo

from impasto.errors import ImpastoError
from impasto.images.color import COLOR_MODES
from impasto.images.files import decode_picture
from impasto.methods import DEFAULT_METHOD, list_methods
from impasto.server.guard import NoAddresses
from impasto.server.page_events import FILES, Knobs, PagePainter, shown
from impasto.server.schema import LONGEST_NAME, served_options
from impasto.server.studio import Studio
from impasto.server.translations import translations
from impasto.stylizers.styles import built_in_styles

FIRST_STYLE = "starry-night"
MASK_SIDE = 768
LONGEST_SIZE = 20
MOST_EVENTS = 32
CHOOSE = """
element.addEventListener('click', event => {
  const tile = event.target.closest('[data-style]');
  if (tile) trigger('click', {style: tile.dataset.style});
});
"""
CSS = """
.gradio-container {max-width: 1200px !important; margin: auto}
#gallery .prose {display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 6px}
#gallery button {padding: 0; border-radius: 6px; overflow: hidden}
#gallery span {display: block; font-size: 11px; line-height: 1.4; overflow-wrap: anywhere}
#gallery img {width: 100%; margin: 0; display: block; aspect-ratio: 4 / 3; background: #8883}
@media (max-width: 640px) {.gradio-container {padding: 6px !important} #columns {flex-direction: column}
  #columns > * {width: 100% !important; flex: none !important}}
.or, .info-text, button[role=tab] {color: var(--body-text-color) !important}
#paint {background: #1d4ed8; color: #fff}
footer {display: none !important}
"""


def _path_only(payload: Any) -> Any:
    """Return the path of an upload, which only impasto's own checks decode."""
    return None if payload is None else payload.path


def _upload(**options: Any) -> Any:
    """Return a component for uploading a picture; its value is a path."""
    picture: Any = gr.Image(type="filepath", sources=["upload", "clipboard"], buttons=[], **options)
    picture.preprocess = _path_only
    return picture


def _brush() -> Any:
    """Return a component for brushing on a picture; its value is pictures, as bytes, with the mask as alpha."""
    brush: Any = gr.ImageEditor(
        sources=[],
        layers=False,
        transforms=[],
        format="png",
        show_label=False,
        buttons=[],
        brush=gr.Brush(default_size=40, colors=["#ff3b30"], color_mode="fixed"),
        elem_id="brush",
    )

    sent = brush.blob_storage = _BoundedUploads()

    def read_layers(payload: Any) -> list[bytes]:
        if payload is None:
            return []
        if payload.id in sent:
            return [layer for layer in sent.pop(payload.id).layers if layer]
        return [Path(layer.path).read_bytes() for layer in payload.layers or []]

    brush.preprocess = read_layers
    return brush


class _BoundedUploads(OrderedDict[str, Any]):
    """Data that browsers send ahead of their requests; limited, because some are never used."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        while len(self) > MOST_EVENTS:
            self.popitem(last=False)


def add_page(app: FastAPI, studio: Studio, path: str = "/") -> None:
    """Add the page to `app` at `path`, after all existing routes."""
    words = gr.I18n(**translations())
    page = build_page(studio, words)
    page.queue(max_size=MOST_EVENTS, default_concurrency_limit=MOST_EVENTS, api_open=False)
    gr.mount_gradio_app(
        app,
        page,
        path,
        allowed_paths=[],
        max_file_size=studio.limits.max_bytes,
        i18n=words,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
        footer_links=[],
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=CSS,
    )
    mounted: Any = app.routes[-1]
    mounted.app = NoAddresses(mounted.app, studio.limits, Path(get_upload_folder()))


def build_page(studio: Studio, words: Any) -> Any:
    """Return the page with its components and events."""
    knobs = Knobs()
    with gr.Blocks(title="Impasto", analytics_enabled=False, delete_cache=(60, 900)) as page:
        gr.HTML("<h1 style='margin: 0; font-size: 1.5em'>Impasto</h1>", padding=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300):
                _build_inputs(knobs, studio, words)
            with gr.Column(scale=1, min_width=300):
                with gr.Row():
                    paint = gr.Button(words("paint"), variant="primary", elem_id="paint")
                    stop = gr.Button(words("stop"), variant="stop", interactive=False, elem_id="stop")
                status = gr.HTML("", elem_id="status", padding=False)
                slider = gr.ImageSlider(
                    label=words("result"),
                    type="filepath",
                    interactive=False,
                    elem_id="result",
                    max_height=700,
                    buttons=["fullscreen"],
                )
                with gr.Row():
                    files = [
                        gr.DownloadButton(words(f"get_{name}"), interactive=False, size="sm", elem_id=f"get_{name}")
                        for name in FILES
                    ]
        current = gr.State("")
        painter = PagePainter(studio, knobs)
        paint.click(
            painter.paint,
            knobs.components,
            [current, status, slider, stop, paint, *files],
            api_visibility="private",
            show_progress="hidden",
        )
        stop.click(painter.stop, [current], None, api_visibility="private", queue=False)
        _add_call(painter)
    return page


def _add_call(painter: PagePainter) -> None:
    """Add what gradio_client calls by the name of /stylize; people don't see it. Defaults are those of the fields."""
    with gr.Column(visible=False):
        fields = [
            _upload(label="photo"),
            gr.Textbox(FIRST_STYLE, max_length=LONGEST_NAME, label="style"),
            gr.Slider(0, 1, 1, label="strength"),
            gr.Textbox("", max_length=LONGEST_SIZE, label="size"),
            gr.Textbox("", max_length=LONGEST_NAME, label="method"),
            _upload(label="painting"),
        ]
        result = gr.File(label="picture")
        gr.Button("stylize").click(painter.stylize, fields, result, api_name="stylize", show_progress="hidden")


def _build_inputs(knobs: Knobs, studio: Studio, words: Any) -> None:
    common = knobs.common
    common["photo"] = _upload(label=words("photo"), height=300, elem_id="photo")
    source = gr.State("built_in")
    with gr.Tabs(elem_id="style"):
        with gr.Tab(words("built_in"), id="built_in") as tab:
            _build_gallery(common, words)
        tab.select(lambda: "built_in", None, source, api_visibility="private")
        for name, make in (("painting", _painting_upload), ("card", _card_upload)):
            with gr.Tab(words(name), id=name, elem_id=f"tab_{name}") as tab:
                common[name] = make(words)
            tab.select(functools.partial(str, name), None, source, api_visibility="private")
    common["source"] = source
    common["strength"] = gr.Slider(
        0, 1, 1, step=0.05, label=words("strength"), info=words("strength_info"), elem_id="strength"
    )
    with gr.Row():
        modes = list(COLOR_MODES)
        common["method"] = gr.Dropdown(list_methods(), value=DEFAULT_METHOD, label=words("method"), elem_id="method")
        common["keep_color"] = gr.Dropdown(modes, value="off", label=words("keep_color"), elem_id="keep_color")
    common["size"] = gr.Textbox(
        "", max_length=LONGEST_SIZE, label=words("size"), info=words("size_info"), elem_id="size"
    )
    with gr.Accordion(words("mask"), open=False, elem_id="mask"):
        gr.HTML(f"<small>{words('mask_info')}</small>", padding=False)
        common["mask"] = brush = _brush()
    common["photo"].change(
        functools.partial(_mask_background, studio),
        common["photo"],
        brush,
        api_visibility="private",
        show_progress="hidden",
    )
    with gr.Accordion(words("options"), open=False, elem_id="options"):
        common["seed"] = gr.Number(0, precision=0, minimum=0, label=words("seed"), info=words("seed_info"))
        groups = [_build_options(knobs, method, words) for method in list_methods()]
    common["method"].change(
        lambda chosen: [gr.update(visible=method == chosen) for method in list_methods()],
        common["method"],
        groups,
        api_visibility="private",
        show_progress="hidden",
    )


def _mask_background(studio: Studio, photo: str | None) -> Any:
    """Return the photo, small, to brush on; nothing if it can't be read, which is reported when it is painted."""
    if photo is None:
        return None
    try:
        small = studio.shrink(Path(photo).read_bytes(), MASK_SIDE)
    except ImpastoError:
        return None
    return decode_picture(small, "content", max_pixels=MASK_SIDE**2, max_side=MASK_SIDE).stored.numpy()


def _build_gallery(common: dict[str, Any], words: Any) -> None:
    """Add a list of the built-in styles, and their pictures to click on, which are loaded lazily."""
    names = list(built_in_styles())
    chosen = gr.Dropdown(names, value=FIRST_STYLE, label=words("choose"), elem_id="built_in")
    tiles = gr.HTML("".join(map(_tile, names)), elem_id="gallery", padding=False, js_on_load=CHOOSE)
    tiles.click(_read_choice, None, chosen, api_visibility="private", show_progress="hidden")
    common["built_in"] = chosen


def _tile(name: str) -> str:
    title = name.replace("-", " ")
    picture = f"<img loading='lazy' alt='' src='/v1/styles/{name}/picture'>"
    return f"<button type='button' data-style='{name}' title='{title}'>{picture}<span>{title}</span></button>"


def _read_choice(event: gr.EventData) -> Any:
    name = getattr(event, "style", None)
    return name if name in built_in_styles() else gr.skip()


def _painting_upload(words: Any) -> Any:
    return _upload(label=words("painting"), height=220, elem_id="painting")


def _card_upload(words: Any) -> Any:
    return gr.File(label=words("card"), file_types=[".safetensors"], type="filepath", height=120, elem_id="card")


def _build_options(knobs: Knobs, method: str, words: Any) -> Any:
    """Return a group with a component for each of the method's options."""
    with gr.Group(visible=method == DEFAULT_METHOD) as group:
        for name, option in served_options(method).model_fields.items():
            label = name.replace("_", " ")
            knobs.options[method, name] = _component(option, label, words(f"{method}.{name}"), f"{method}-{name}")
    return group


def _component(option: FieldInfo, label: str, info: Any, identity: str) -> Any:
    """Return the component of an option, by its type and range."""
    value = shown(option.default)
    common: dict[str, Any] = {"label": label, "info": info, "elem_id": identity}
    limits = {key: getattr(item, key) for item in option.metadata for key in ("ge", "le") if hasattr(item, key)}
    if option.annotation is bool:
        return gr.Checkbox(value, **common)
    if get_origin(option.annotation) is Literal:
        return gr.Dropdown([str(choice) for choice in option.annotation.__args__], value=value, **common)  # type: ignore[union-attr]
    if option.annotation in (int, float):
        whole: dict[str, Any] = {"precision": 0} if option.annotation is int else {}
        return gr.Number(value, minimum=limits.get("ge"), maximum=limits.get("le"), **whole, **common)
    return gr.Textbox(value, max_length=200, **common)
