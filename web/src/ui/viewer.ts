// The picture: photo below, painting above, a slider between them, and a brush for the area.

import type { App } from "../app";
import { say } from "../words";
import { find } from "./dom";

const MASK_SIDE = 1024;
const BRUSH = 0.06;

export class Viewer {
  private readonly frame = find("frame");
  private readonly viewer = find("viewer");
  private readonly photo = find<HTMLCanvasElement>("photo-canvas");
  private readonly painted = find<HTMLCanvasElement>("painted-canvas");
  private readonly compare = find<HTMLInputElement>("compare");
  readonly brush: Brush;
  private drawn: unknown = null;

  constructor(private readonly app: App) {
    this.brush = new Brush(app, () => this.draw());
    this.compare.addEventListener("input", () => this.cut());
    app.onChange(() => this.render());
    new ResizeObserver(() => this.resize()).observe(this.frame);
    this.cut();
  }

  /** Show a frame of the camera. */
  showFrame(frame: CanvasImageSource, painted: ImageBitmap): void {
    const { width, height } = painted;
    this.place(width, height);
    this.photo.getContext("2d")!.drawImage(frame, 0, 0, width, height);
    const context = this.painted.getContext("2d")!;
    const { strength } = this.app.choice;
    context.globalAlpha = 1; // the strength is in the pixels, since these are recorded
    if (strength < 1) context.drawImage(frame, 0, 0, width, height);
    context.globalAlpha = strength;
    context.drawImage(painted, 0, 0);
    context.globalAlpha = 1;
    this.drawn = null;
  }

  get canvas(): HTMLCanvasElement {
    return this.painted;
  }

  private render(): void {
    const { app } = this;
    const empty = app.view === null && app.activity !== "camera";
    find("invite").hidden = !empty || app.photos.length > 0;
    this.viewer.hidden = empty;
    this.frame.classList.toggle("empty", empty && app.photos.length === 0);
    this.frame.classList.toggle("stale", app.stale && !app.bare && app.activity !== "camera");
    this.painted.style.opacity = String(app.activity === "camera" ? 1 : app.choice.strength);
    const photo = app.findPhoto();
    this.photo.setAttribute("aria-label", photo ? say("photoNamed", photo.name) : say("camera"));
    this.painted.setAttribute("aria-label", say("again", photo?.name ?? "", app.styleName()));
    this.compare.setAttribute("aria-valuetext", say("photoShare", this.compare.value));
    if (app.activity !== "camera" && app.view !== null && this.drawn !== app.view) this.draw();
    this.brush.follow(photo?.id ?? null, photo?.mask);
  }

  private draw(): void {
    const { view } = this.app;
    if (view === null) return;
    this.drawn = view;
    this.place(view.painted.width, view.painted.height);
    this.photo.getContext("2d")!.drawImage(view.photo, 0, 0);
    const context = this.painted.getContext("2d")!;
    context.globalCompositeOperation = "copy";
    context.drawImage(view.painted, 0, 0);
    if (this.brush.mask !== null) {
      context.globalCompositeOperation = "destination-in";
      context.drawImage(this.brush.mask, 0, 0, this.painted.width, this.painted.height);
    }
    context.globalCompositeOperation = "source-over";
  }

  private place(width: number, height: number): void {
    for (const canvas of [this.photo, this.painted]) {
      if (canvas.width === width && canvas.height === height) continue;
      canvas.width = width;
      canvas.height = height;
    }
    this.resize();
  }

  /** As large as the frame allows, small pictures enlarged. */
  private resize(): void {
    const { clientWidth, clientHeight } = this.frame;
    const scale = Math.min(clientWidth / this.photo.width, clientHeight / this.photo.height);
    this.viewer.style.setProperty("--width", `${Math.floor(this.photo.width * scale)}px`);
  }

  private cut(): void {
    this.viewer.style.setProperty("--cut", `${this.compare.value}%`);
    this.viewer.classList.toggle("comparing", Number(this.compare.value) > 0);
    this.compare.setAttribute("aria-valuetext", say("photoShare", this.compare.value));
  }
}

/** The brush that chooses the area: white on a small canvas is what is painted. */
class Brush {
  mask: HTMLCanvasElement | null = null;
  private readonly canvas = find<HTMLCanvasElement>("brush-canvas");
  private mode: "off" | "brush" | "erase" = "off";
  private photo: string | null = null;
  private last: [number, number] | null = null;

  constructor(
    private readonly app: App,
    private readonly redraw: () => void,
  ) {
    for (const mode of ["brush", "erase"] as const) {
      find(mode).addEventListener("click", () => this.switch(this.mode === mode ? "off" : mode));
    }
    find("everything").addEventListener("click", () => {
      this.mask = null;
      this.switch("off");
      void app.setMask(undefined);
      this.redraw();
    });
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"] as const) this.canvas.addEventListener(end, () => this.release());
  }

  /** Take up the area of another photo. */
  follow(photo: string | null, mask: Blob | undefined): void {
    if (photo === this.photo) return;
    this.photo = photo;
    this.mask = null;
    this.switch("off");
    if (mask) void this.load(mask);
  }

  private async load(mask: Blob): Promise<void> {
    const bitmap = await createImageBitmap(mask);
    const context = this.begin(bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    const image = context.getImageData(0, 0, bitmap.width, bitmap.height);
    for (let at = 0; at < image.data.length; at += 4) image.data[at + 3] = image.data[at];
    context.putImageData(image, 0, 0);
    this.redraw();
  }

  private begin(width: number, height: number): CanvasRenderingContext2D {
    this.mask = document.createElement("canvas");
    this.mask.width = width;
    this.mask.height = height;
    return this.mask.getContext("2d", { willReadFrequently: true })!;
  }

  private switch(mode: "off" | "brush" | "erase"): void {
    this.mode = mode;
    this.canvas.hidden = mode === "off";
    find("compare").hidden = mode !== "off";
    for (const name of ["brush", "erase"]) find(name).setAttribute("aria-pressed", String(mode === name));
  }

  private press(event: PointerEvent): void {
    this.canvas.setPointerCapture(event.pointerId);
    const photo = this.app.findPhoto();
    if (photo === null) return;
    if (this.mask === null) {
      const scale = Math.min(1, MASK_SIDE / Math.max(photo.width, photo.height));
      const context = this.begin(Math.round(photo.width * scale), Math.round(photo.height * scale));
      context.fillStyle = "#fff";
      if (this.mode === "erase") context.fillRect(0, 0, this.mask!.width, this.mask!.height);
    }
    this.last = this.point(event);
    this.move(event);
  }

  private point(event: PointerEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.mask!.width,
      ((event.clientY - box.top) / box.height) * this.mask!.height,
    ];
  }

  private move(event: PointerEvent): void {
    if (this.last === null || this.mask === null) return;
    const context = this.mask.getContext("2d")!;
    const point = this.point(event);
    context.globalCompositeOperation = this.mode === "erase" ? "destination-out" : "source-over";
    context.strokeStyle = "#fff";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = BRUSH * Math.max(this.mask.width, this.mask.height);
    context.beginPath();
    context.moveTo(...this.last);
    context.lineTo(...point);
    context.stroke();
    this.last = point;
    this.redraw();
  }

  private release(): void {
    if (this.last === null || this.mask === null) return;
    this.last = null;
    this.app.brushed = this.keep(this.mask);
  }

  /** Keep what was brushed, as white on black. */
  private async keep(mask: HTMLCanvasElement): Promise<void> {
    const flat = document.createElement("canvas");
    flat.width = mask.width;
    flat.height = mask.height;
    const context = flat.getContext("2d")!;
    context.fillRect(0, 0, flat.width, flat.height);
    context.drawImage(mask, 0, 0);
    const blob = await new Promise<Blob | null>((resolve) => flat.toBlob(resolve, "image/png"));
    if (blob) await this.app.setMask(blob);
  }
}
