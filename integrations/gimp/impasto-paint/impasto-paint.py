#!/usr/bin/env python3
"""A GIMP 3 plug-in: Filters > Artistic > Paint with Impasto repaints a layer in a painting's style."""

from __future__ import annotations

import sys
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("GdkPixbuf", "2.0")
from gi.repository import GdkPixbuf, Gegl, Gimp, GLib, GObject  # noqa: E402
from impasto_client import ADDRESS, Leash, Problem, Server, reach  # noqa: E402

NAME = "plug-in-impasto-paint"
TITLE = "Paint with Impasto"
HELP = "Repaint the layer in the style of a built-in painting or of a picture file. The selection limits the result."
COLORS = {
    "off": "the painting's",
    "luminance": "the layer's own (luminance)",
    "lab": "the layer's own (CIE Lab)",
    "histogram": "the painting, recoloured (histogram)",
    "covariance": "the painting, recoloured (covariance)",
}
PIXELS = "R'G'B'A u8"
"""Bytes in sRGB: GEGL converts from and to the image's own colour space and precision."""
METHOD_HELP = "swift is quick; nnst_d looks more painted, in seconds; nnst is the finest, in minutes"
LARGEST_SIZE, LARGEST_SEED = 16384, 2**31 - 1


class ImpastoPaint(Gimp.PlugIn):
    """The plug-in, as GIMP finds it."""

    def do_query_procedures(self) -> list[str]:
        """Name its one procedure."""
        return [NAME]

    def do_set_i18n(self, name: str) -> bool:
        """Use no translations."""
        return False

    def do_create_procedure(self, name: str) -> Any:
        """Describe the procedure: where its menu entry is and what it can be given."""
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        procedure.set_image_types("RGB*, GRAY*")
        procedure.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE)
        procedure.set_menu_label(f"{TITLE}…")
        procedure.add_menu_path("<Image>/Filters/Artistic")
        procedure.set_documentation(HELP, HELP, name)
        procedure.set_attribution("impasto contributors", "impasto contributors", "2026")
        add_arguments(procedure)
        return procedure


def add_arguments(procedure: Any) -> None:
    """Add what the user can choose."""
    flags = GObject.ParamFlags.READWRITE
    colors = Gimp.Choice.new()
    for number, (name, label) in enumerate(COLORS.items()):
        colors.add(name, number, label, "")
    procedure.add_string_argument("style", "_Style", "A built-in style", "starry-night", flags)
    procedure.add_file_argument(
        "painting",
        "Or a _painting",
        "A picture file whose style is taken",
        Gimp.FileChooserAction.OPEN,
        True,
        None,
        flags,
    )
    procedure.add_string_argument("method", "_Method", METHOD_HELP, "swift", flags)
    procedure.add_double_argument("strength", "S_trength", "How much of the style", 0.0, 1.0, 1.0, flags)
    procedure.add_int_argument(
        "size", "Longer si_de", "Longer side at which it is painted; 0: the layer's own", 0, LARGEST_SIZE, 0, flags
    )
    procedure.add_choice_argument("keep-color", "_Colours", "Whose colours the result has", colors, "off", flags)
    procedure.add_int_argument("seed", "S_eed", "The same seed gives the same picture", 0, LARGEST_SEED, 0, flags)
    procedure.add_boolean_argument("new-layer", "_New layer", "Keep the layer and paint a new one", True, flags)
    procedure.add_string_argument("server", "Ser_ver", "Where `impasto serve` answers", ADDRESS, flags)


def run(procedure: Any, run_mode: Any, image: Any, drawables: list[Any], config: Any, data: Any) -> Any:
    """Paint the one selected layer; what went wrong is one line in GIMP's message."""
    if len(drawables) != 1 or not isinstance(drawables[0], Gimp.Layer):
        return fail(procedure, "select one layer to paint", Gimp.PDBStatusType.CALLING_ERROR)
    Gegl.init(None)
    if run_mode == Gimp.RunMode.INTERACTIVE and not ask_user(procedure, config):
        return procedure.new_return_values(Gimp.PDBStatusType.CANCEL, GLib.Error())
    Gimp.progress_init("Impasto is painting")
    leash = Leash()
    try:
        with reach(config.get_property("server"), leash) as server:
            painted = paint(server, drawables[0], config, leash)
        put(image, drawables[0], painted, new=config.get_property("new-layer"))
    except Problem as problem:
        return fail(procedure, str(problem), Gimp.PDBStatusType.EXECUTION_ERROR)
    finally:
        leash.release()
        Gimp.progress_end()
    Gimp.displays_flush()
    return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, GLib.Error())


def fail(procedure: Any, text: str, status: Any) -> Any:
    """Return the procedure's failure with a message."""
    return procedure.new_return_values(status, GLib.Error.new_literal(Gimp.PlugIn.error_quark(), text, 0))


def paint(server: Server, layer: Any, config: Any, leash: Leash) -> Any:
    """Return the painted layer as a GdkPixbuf of the layer's size."""
    file = config.get_property("painting")
    painting = read_painting(file) if file is not None else None
    wishes = {name: config.get_property(name) for name in ("method", "strength", "seed")}
    wishes["keep_color"] = config.get_property("keep-color")
    if config.get_property("size"):
        wishes["size"] = config.get_property("size")
    data = server.paint(
        encode_layer(layer),
        style=config.get_property("style"),
        painting=painting,
        on_progress=show_progress,
        leash=leash,
        **wishes,
    )
    loader = GdkPixbuf.PixbufLoader.new_with_type("png")
    loader.write_bytes(GLib.Bytes.new(data))
    loader.close()
    picture, size = loader.get_pixbuf(), (layer.get_width(), layer.get_height())
    if (picture.get_width(), picture.get_height()) != size:
        picture = picture.scale_simple(*size, GdkPixbuf.InterpType.HYPER)
    return picture if picture.get_has_alpha() else picture.add_alpha(False, 0, 0, 0)


def show_progress(share: float | None) -> None:
    """Move GIMP's progress bar."""
    Gimp.progress_pulse() if share is None else Gimp.progress_update(share)


def read_painting(file: Any) -> bytes:
    """Return a picture file as PNG, upright; raises Problem."""
    try:
        picture = GdkPixbuf.Pixbuf.new_from_file(file.get_path()).apply_embedded_orientation()
    except GLib.Error as error:
        raise Problem(f"the painting can't be read: {error.message}") from None
    return encode(picture)


def encode(picture: Any) -> bytes:
    """Return a GdkPixbuf as PNG."""
    _, data = picture.save_to_bufferv("png", [], [])
    return bytes(data)


def encode_layer(layer: Any) -> bytes:
    """Return the whole layer, with its transparency, as PNG in sRGB."""
    width, height = layer.get_width(), layer.get_height()
    area = Gegl.Rectangle.new(0, 0, width, height)
    pixels = layer.get_buffer().get(area, 1.0, PIXELS, Gegl.AbyssPolicy.CLAMP)
    bytes_ = GLib.Bytes.new(pixels)
    return encode(GdkPixbuf.Pixbuf.new_from_bytes(bytes_, GdkPixbuf.Colorspace.RGB, True, 8, width, height, 4 * width))


def put(image: Any, layer: Any, picture: Any, *, new: bool) -> None:
    """Put the picture on a new layer above, or onto the layer itself, within the selection; one step of undo."""
    image.undo_group_start()
    try:
        if new:
            put_on_new_layer(image, layer, picture)
        else:
            put_on_layer(layer, picture)
    finally:
        image.undo_group_end()


def put_on_new_layer(image: Any, layer: Any, picture: Any) -> None:
    """Add a layer right above, with the selection as its mask."""
    above = layer.copy()
    above.set_name(f"{layer.get_name()} (impasto)")
    image.insert_layer(above, layer.get_parent(), image.get_item_position(layer))
    if above.get_mask() is not None:
        above.remove_mask(Gimp.MaskApplyMode.DISCARD)
    if not above.has_alpha():
        above.add_alpha()
    fill(above.get_buffer(), picture)
    above.update(0, 0, above.get_width(), above.get_height())
    if not Gimp.Selection.is_empty(image):
        above.add_mask(above.create_mask(Gimp.AddMaskType.SELECTION))


def put_on_layer(layer: Any, picture: Any) -> None:
    """Replace the layer's pixels where they are selected."""
    selected, x, y, width, height = layer.mask_intersect()
    if selected:
        fill(layer.get_shadow_buffer(), picture)
        layer.merge_shadow(True)
        layer.update(x, y, width, height)


def fill(buffer: Any, picture: Any) -> None:
    """Write the whole picture into a buffer of its size."""
    area = Gegl.Rectangle.new(0, 0, picture.get_width(), picture.get_height())
    buffer.set(area, PIXELS, picture.read_pixel_bytes().get_data())
    buffer.flush()


def ask_user(procedure: Any, config: Any) -> bool:
    """Show the dialog; returns whether to go on."""
    gi.require_version("Gtk", "3.0")
    gi.require_version("GimpUi", "3.0")
    from gi.repository import GimpUi, Gtk

    GimpUi.init(NAME)
    dialog = GimpUi.ProcedureDialog.new(procedure, config, TITLE)
    grid = Gtk.Grid(row_spacing=6, column_spacing=12)
    server = Server(config.get_property("server"))
    for row, (name, label, find) in enumerate(
        (("style", "_Style", server.style_names), ("method", "_Method", server.method_names))
    ):
        grid.attach(Gtk.Label(label=label, use_underline=True, xalign=0), 0, row, 1, 1)
        grid.attach(make_list(config, name, find), 1, row, 1, 1)
    grid.show_all()
    dialog.get_content_area().pack_start(grid, False, False, 6)
    dialog.fill(["painting", "strength", "size", "keep-color", "seed", "new-layer", "server"])
    going_on = dialog.run()
    dialog.destroy()
    return bool(going_on)


def make_list(config: Any, name: str, find: Any) -> Any:
    """Make a field for the argument `name` with what the server knows to choose from; any name can be typed, too."""
    from gi.repository import Gtk

    box = Gtk.ComboBoxText.new_with_entry()
    box.set_hexpand(True)
    try:
        names = find()
    except Problem:
        names = []  # a server is started later, and knows then whether the name is right
    for one in names:
        box.append_text(one)
    how = GObject.BindingFlags.BIDIRECTIONAL | GObject.BindingFlags.SYNC_CREATE
    config.bind_property(name, box.get_child(), "text", how)
    return box


if __name__ == "__main__":
    Gimp.main(ImpastoPaint.__gtype__, sys.argv)
