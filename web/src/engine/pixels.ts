// Pictures as bytes: decoding, resizing as the command line resizes, tensors, and back.

export interface Pixels {
  width: number;
  height: number;
  /** RGBA, 8 bits each. */
  data: Uint8ClampedArray<ArrayBuffer>;
}

const STRIP = 4_000_000;
const CUBIC = -0.5;

/** Decode a picture upright, with its colours in sRGB. Canvases stay small, whatever the picture's size. */
export async function decode(blob: Blob): Promise<Pixels> {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none" });
  try {
    return readBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

/** The pixels of a bitmap, read strip by strip. */
export function readBitmap(bitmap: ImageBitmap): Pixels {
  const { width, height } = bitmap;
  const data = new Uint8ClampedArray(width * height * 4);
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  for (let top = 0; top < height; top += rows) {
    const here = Math.min(rows, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    data.set(context.getImageData(0, 0, width, here).data, top * width * 4);
  }
  return { width, height, data };
}

/** Width and height of the same proportions with that longer side; never enlarged. */
export function fit(width: number, height: number, longer: number): [number, number] {
  const before = Math.max(width, height);
  if (before <= longer) return [width, height];
  return [Math.max(1, round(width * longer / before)), Math.max(1, round(height * longer / before))];
}

/** Round as Python does: halves to the even number. */
function round(value: number): number {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** Resize by antialiased bicubic interpolation, as the command line does. */
export function resize(image: Pixels, width: number, height: number): Pixels {
  if (image.width === width && image.height === height) return image;
  const columns = taps(image.width, width);
  const rows = taps(image.height, height);
  const narrow = new Float32Array(width * image.height * 4);
  for (let y = 0; y < image.height; y++) {
    const line = y * image.width * 4;
    for (let x = 0; x < width; x++) {
      const { start, weights } = columns[x];
      let r = 0, g = 0, b = 0, a = 0;
      for (let k = 0, at = line + start * 4; k < weights.length; k++, at += 4) {
        const w = weights[k];
        r += w * image.data[at];
        g += w * image.data[at + 1];
        b += w * image.data[at + 2];
        a += w * image.data[at + 3];
      }
      const to = (y * width + x) * 4;
      narrow[to] = r;
      narrow[to + 1] = g;
      narrow[to + 2] = b;
      narrow[to + 3] = a;
    }
  }
  const data = new Uint8ClampedArray(width * height * 4);
  const line = width * 4;
  const sum = new Float32Array(line);
  for (let y = 0; y < height; y++) {
    const { start, weights } = rows[y];
    sum.fill(0);
    for (let k = 0; k < weights.length; k++) {
      const w = weights[k];
      const from = (start + k) * line;
      for (let i = 0; i < line; i++) sum[i] += w * narrow[from + i];
    }
    data.set(sum, y * line);
  }
  return { width, height, data };
}

interface Taps {
  start: number;
  weights: Float32Array;
}

function taps(before: number, after: number): Taps[] {
  const scale = before / after;
  const spread = Math.max(1, scale);
  const support = 2 * spread;
  return Array.from({ length: after }, (_, i) => {
    const centre = scale * (i + 0.5);
    const start = Math.max(0, Math.floor(centre - support + 0.5));
    const end = Math.min(before, Math.floor(centre + support + 0.5));
    const weights = Float32Array.from({ length: end - start }, (_, k) => cubic((start + k - centre + 0.5) / spread));
    const total = weights.reduce((sum, w) => sum + w, 0);
    return { start, weights: weights.map((w) => w / total) };
  });
}

function cubic(x: number): number {
  const d = Math.abs(x);
  if (d < 1) return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * CUBIC;
  return 0;
}

/** Planes of red, green and blue in [0, 1]. */
export function planes(image: Pixels): Float32Array<ArrayBuffer> {
  const count = image.width * image.height;
  const found = new Float32Array(3 * count);
  for (let i = 0, at = 0; i < count; i++, at += 4) {
    found[i] = image.data[at] / 255;
    found[count + i] = image.data[at + 1] / 255;
    found[2 * count + i] = image.data[at + 2] / 255;
  }
  return found;
}

/** A picture of planes in [0, 1], with the alpha of `like`. */
export function fromPlanes(values: Float32Array, like: Pixels): Pixels {
  const count = like.width * like.height;
  const data = new Uint8ClampedArray(count * 4);
  for (let i = 0, at = 0; i < count; i++, at += 4) {
    data[at] = values[i] * 255; // a clamped array rounds
    data[at + 1] = values[count + i] * 255;
    data[at + 2] = values[2 * count + i] * 255;
    data[at + 3] = like.data[at + 3];
  }
  return { width: like.width, height: like.height, data };
}

/** The lightness of `painted` with the colours of `photo`: Rec. 601, every channel moves alike. */
export function keepColours(painted: Pixels, photo: Pixels): Pixels {
  const data = new Uint8ClampedArray(painted.data.length);
  for (let at = 0; at < data.length; at += 4) {
    const change = luma(painted.data, at) - luma(photo.data, at);
    for (let c = 0; c < 3; c++) data[at + c] = photo.data[at + c] + change;
    data[at + 3] = painted.data[at + 3];
  }
  return { width: painted.width, height: painted.height, data };
}

function luma(data: Uint8ClampedArray, at: number): number {
  return 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
}

/** What is shown or saved: the photo, and `strength` of the painting over it, where the mask is white. */
export function blend(photo: Pixels, painted: Pixels, strength: number, mask: Pixels | null): Pixels {
  if (strength === 1 && mask === null) return painted;
  const data = new Uint8ClampedArray(photo.data.length);
  for (let at = 0; at < data.length; at += 4) {
    const share = mask === null ? strength : (strength * mask.data[at]) / 255;
    for (let c = 0; c < 3; c++) data[at + c] = photo.data[at + c] + share * (painted.data[at + c] - photo.data[at + c]);
    data[at + 3] = photo.data[at + 3];
  }
  return { width: photo.width, height: photo.height, data };
}

/** The file of a picture. */
export async function encode(image: Pixels, type: string): Promise<Blob> {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  if (context === null) throw new RangeError("this canvas is too large");
  context.putImageData(new ImageData(image.data, image.width, image.height), 0, 0);
  return canvas.convertToBlob({ type, quality: 0.92 });
}
