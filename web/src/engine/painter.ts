// Photos and paintings to pictures: what the worker does.

import type * as Ort from "onnxruntime-web";
import { Runtime, type Device, type Kernels } from "./models";
import { blend, decode, encode, fit, fromPlanes, keepColours, planes, readBitmap, resize, type Pixels } from "./pixels";
import { paintInTiles, type OnProgress } from "./tiles";

/** One of the styles that are mixed: the numbers of a built-in one, or a painting. */
export interface StylePart {
  share: number;
  id: string;
  numbers?: number[];
  painting?: Blob;
}

export interface Order {
  photo: string;
  file: Blob;
  /** Longer side of the result; none: the photo's own. */
  longer: number | null;
  styles: StylePart[];
  colours: boolean;
}

export interface ExportOrder extends Order {
  strength: number;
  mask: Blob | null;
  /** What a server painted, instead of painting here. */
  picture: Blob | null;
  type: string;
}

export interface Settings {
  base: string;
  device: Device | "auto";
  /** For tests: the side of tiles, and the pixels from which on pictures are cut; null: the usual ones. */
  tile: number | null;
  piece: number | null;
}

const ONE_PIECE = 1_500_000;
const LEAST = 16;

export class Painter {
  private photo: { id: string; whole: Pixels } | null = null;
  private fitted: { key: string; image: Pixels } | null = null;
  private painted: { key: string; image: Pixels } | null = null;
  private kernels: { key: string; values: Kernels } | null = null;
  private readonly paintings = new Map<string, number[]>();
  private earlier: { key: string; moments: Ort.Tensor; count: number } | null = null;

  private constructor(
    private readonly runtime: Runtime,
    private readonly settings: Settings,
  ) {}

  static async open(settings: Settings): Promise<Painter> {
    const runtime = await Runtime.open(settings.base, settings.device);
    for (const name of ["kernels", "network"] as const) await runtime.session(name); // the first picture needs them
    return new Painter(runtime, settings);
  }

  get device(): Device {
    return this.runtime.device;
  }

  /** Decode a photo, which is kept until the next one comes. */
  async look(id: string, file: Blob): Promise<Pixels> {
    if (this.photo?.id !== id) {
      this.photo = null;
      this.fitted = this.painted = null;
      this.photo = { id, whole: await decode(file) };
    }
    return this.photo.whole;
  }

  /** Paint at full strength; the last result is kept. */
  async paint(order: Order, onProgress: OnProgress): Promise<{ photo: Pixels; painted: Pixels }> {
    const photo = await this.fit(order);
    const key = describe(order);
    if (this.painted?.key !== key) {
      const kernels = await this.kernelsOf(order.styles, Math.max(photo.width, photo.height));
      this.painted = null;
      const plain = await this.run(photo, kernels, onProgress);
      this.painted = { key, image: order.colours ? keepColours(plain, photo) : plain };
    }
    return { photo, painted: this.painted.image };
  }

  /** The file of a picture as it is shown. */
  async export(order: ExportOrder, onProgress: OnProgress): Promise<Blob> {
    const { photo, painted } = await (order.picture ? this.join(order, order.picture) : this.paint(order, onProgress));
    const mask = order.mask === null ? null : await readMask(order.mask, photo.width, photo.height);
    const image = blend(photo, painted, order.strength, mask);
    return encode(order.type === "image/jpeg" ? onWhite(image) : image, order.type);
  }

  /** Photo and picture of a server, of the same size. */
  private async join(order: Order, picture: Blob): Promise<{ photo: Pixels; painted: Pixels }> {
    const painted = await decode(picture);
    const whole = await this.look(order.photo, order.file);
    return { photo: resize(whole, painted.width, painted.height), painted };
  }

  /** Paint a frame of a camera with moments that change slowly. memory: how much each frame counts less than the next. */
  async paintFrame(bitmap: ImageBitmap, styles: StylePart[], memory: number): Promise<Pixels> {
    const photo = readBitmap(bitmap);
    bitmap.close();
    const kernels = await this.kernelsOf(styles, Math.max(photo.width, photo.height), true);
    const key = this.kernels!.key;
    const before = this.earlier?.key === key ? this.earlier : null;
    const weight = before ? memory * before.count : 0;
    const found = await this.runWhole(photo, kernels, before?.moments, weight / (1 + weight));
    before?.moments.dispose();
    this.earlier = { key, moments: found.measured, count: 1 + weight };
    return found.image;
  }

  /** Begin a new film. */
  forget(): void {
    this.earlier = null;
  }

  private async fit(order: Order): Promise<Pixels> {
    const key = `${order.photo}/${order.longer}`;
    if (this.fitted?.key !== key) {
      const whole = await this.look(order.photo, order.file);
      const [width, height] = fit(whole.width, whole.height, order.longer ?? Infinity);
      this.fitted = { key, image: resize(whole, Math.max(LEAST, width), Math.max(LEAST, height)) };
    }
    return this.fitted.image;
  }

  private async run(photo: Pixels, kernels: Kernels, onProgress: OnProgress): Promise<Pixels> {
    const { piece, tile } = this.settings;
    if (photo.width * photo.height > (piece ?? ONE_PIECE)) {
      return paintInTiles(this.runtime, kernels, photo, onProgress, tile ?? undefined);
    }
    await onProgress(0);
    const { image, measured } = await this.runWhole(photo, kernels);
    measured.dispose();
    return image;
  }

  private async runWhole(
    photo: Pixels,
    kernels: Kernels,
    earlier?: Ort.Tensor,
    share = 0,
  ): Promise<{ image: Pixels; measured: Ort.Tensor }> {
    const session = await this.runtime.session("network");
    const { normed } = this.runtime.models.network;
    const feeds = {
      ...kernels,
      photo: this.runtime.tensor(planes(photo), [1, 3, photo.height, photo.width]),
      earlier: earlier ?? this.runtime.tensor(new Float32Array(2 * normed), [2, normed]),
      share: this.runtime.tensor(Float32Array.of(share), [1]),
    };
    const { picture, measured } = await session.run(feeds);
    const image = fromPlanes((await picture.getData()) as Float32Array, photo);
    picture.dispose();
    return { image, measured };
  }

  /** The weights of the network for mixed styles. loose: numbers of a painting that was seen at another size will do. */
  private async kernelsOf(styles: StylePart[], longer: number, loose = false): Promise<Kernels> {
    const key = `${mixKey(styles)}/${loose ? "any" : styles.some((style) => style.painting) ? longer : ""}`;
    if (this.kernels?.key !== key) {
      const size = this.runtime.models.network.numbers;
      const mixed = new Float32Array(size);
      for (const style of styles) {
        const numbers = style.numbers ?? (await this.encodePainting(style, loose ? Math.max(512, longer) : longer));
        for (let i = 0; i < size; i++) mixed[i] += style.share * numbers[i];
      }
      const session = await this.runtime.session("kernels");
      this.kernels = { key, values: await session.run({ numbers: this.runtime.tensor(mixed, [1, size]) }) };
    }
    return this.kernels.values;
  }

  /** The numbers of a painting, seen at the size of what is painted, as the command line does. */
  private async encodePainting(style: StylePart, longer: number): Promise<number[]> {
    const key = `${style.id}/${longer}`;
    let found = this.paintings.get(key);
    if (found === undefined) {
      const whole = await decode(style.painting!);
      const [width, height] = fit(whole.width, whole.height, Math.min(longer, 2048));
      const image = onWhite(resize(whole, Math.max(LEAST, width), Math.max(LEAST, height)));
      const session = await this.runtime.session("style");
      const painting = this.runtime.tensor(planes(image), [1, 3, image.height, image.width]);
      const { numbers } = await session.run({ painting });
      found = Array.from((await numbers.getData()) as Float32Array);
      this.paintings.set(key, found);
    }
    return found;
  }
}

function mixKey(styles: StylePart[]): string {
  return styles.map((style) => `${style.id}:${style.share}`).join("+");
}

function describe(order: Order): string {
  return [order.photo, order.longer, mixKey(order.styles), order.colours].join("/");
}

async function readMask(mask: Blob, width: number, height: number): Promise<Pixels> {
  const bitmap = await createImageBitmap(mask, { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" });
  const found = readBitmap(bitmap);
  bitmap.close();
  return found;
}

/** What JPEG can hold: transparent parts on white. */
function onWhite(image: Pixels): Pixels {
  const data = new Uint8ClampedArray(image.data);
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    if (alpha === 255) continue;
    for (let c = 0; c < 3; c++) data[at + c] = 255 + ((data[at + c] - 255) * alpha) / 255;
    data[at + 3] = 255;
  }
  return { width: image.width, height: image.height, data };
}
