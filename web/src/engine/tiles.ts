// Large photos: the network layer by layer, tile by tile, with moments of the whole picture.
//
// The result is that of one piece. Maps of the photo's own size are never kept: they are made again where they are
// needed. Smaller maps are kept whole.

import type { Kernels, LayerForm, Runtime } from "./models";
import type { Pixels } from "./pixels";

const EPS = 1e-5;

/** A part of a map, one channel after the other. */
type Values = Float32Array<ArrayBufferLike>;

/** A map that can be read in parts: `read(top, left, height, width)` lies inside it. */
interface Source {
  channels: number;
  height: number;
  width: number;
  read(top: number, left: number, height: number, width: number): Values | Promise<Values>;
}

interface Affine {
  scale: Float64Array;
  shift: Float64Array;
}

export type OnProgress = (share: number) => Promise<void> | void;

/** Paint `photo` with the network of one style. side: of a tile, in pixels of each map. */
export async function paintInTiles(
  runtime: Runtime,
  kernels: Kernels,
  photo: Pixels,
  onProgress: OnProgress,
  side = 512,
): Promise<Pixels> {
  const run = new Run(runtime, kernels, photo, onProgress, side);
  return run.paint();
}

class Run {
  private readonly layers: LayerForm[];
  private readonly convolution: ((x: Values, size: number[], layer: LayerForm) => Promise<Values>)[] = [];
  private done = 0;
  private readonly total: number;

  constructor(
    private readonly runtime: Runtime,
    private readonly kernels: Kernels,
    private readonly photo: Pixels,
    private readonly onProgress: OnProgress,
    private readonly side: number,
  ) {
    this.layers = runtime.models.network.layers;
    this.total = this.count();
  }

  async paint(): Promise<Pixels> {
    for (const stride of [1, 2]) this.convolution[stride] = await this.bind(stride);
    const { width, height } = this.photo;
    const last = this.layers.length - 1;
    const starts = new Set(this.layers.flatMap((layer, i) => (layer.shortcut ? [i - layer.shortcut] : [])));
    const inputs = new Map<number, Source>();
    let stride = 1;
    let x: Source = photoSource(this.photo);
    let kept = x;
    for (const [i, layer] of this.layers.entries()) {
      if (layer.opens) kept = x;
      if (starts.has(i)) inputs.set(i, x);
      stride = layer.up ? stride / 2 : stride * layer.stride;
      const size = [Math.floor(height / stride), Math.floor(width / stride)];
      const y = this.convolve(x, layer, size);
      if (i === last) return this.finish(y);
      const joined = layer.shortcut ? inputs.get(i - layer.shortcut)! : null;
      const plus = layer.closes ? kept : null;
      if (stride > 1) x = await this.store(y, layer, plus, joined);
      else x = this.settled(y, layer, layer.scale ? affineOf(this.kernels, layer, await this.measure(y)) : null, plus, joined);
    }
    throw new Error("the network has no layers");
  }

  /** The convolution of `layer` over `x`, read part by part. */
  private convolve(x: Source, layer: LayerForm, [height, width]: number[]): Source {
    const from = layer.up ? doubled(x) : x;
    const edge = layer.kernel >> 1;
    const run = async (top: number, left: number, h: number, w: number): Promise<Values> => {
      const rows = (h - 1) * layer.stride + layer.kernel;
      const columns = (w - 1) * layer.stride + layer.kernel;
      const window = await mirrored(from, top * layer.stride - edge, left * layer.stride - edge, rows, columns);
      return this.convolution[layer.stride](window, [rows, columns], layer);
    };
    const whole = { channels: layer.outputs, height, width, read: run };
    return layer.up ? extended({ ...whole, height: from.height, width: from.width }, height, width) : whole;
  }

  /** Run over all tiles of a map. */
  private async each(y: Source, work: (part: Values, top: number, left: number, h: number, w: number) => void): Promise<void> {
    for (let top = 0; top < y.height; top += this.side) {
      for (let left = 0; left < y.width; left += this.side) {
        const h = Math.min(this.side, y.height - top);
        const w = Math.min(this.side, y.width - left);
        work(await y.read(top, left, h, w), top, left, h, w);
        this.done += h * w * y.channels;
        await this.onProgress(Math.min(1, this.done / this.total));
      }
    }
  }

  /** Sums and sums of squares of every channel. */
  private async measure(y: Source, see?: (part: Values, top: number, left: number, h: number, w: number) => void): Promise<Float64Array[]> {
    const sums = [new Float64Array(y.channels), new Float64Array(y.channels)];
    await this.each(y, (part, top, left, h, w) => {
      addMoments(part, y.channels, sums);
      see?.(part, top, left, h, w);
    });
    const count = y.height * y.width;
    return sums.map((sum) => sum.map((value) => value / count));
  }

  /** The whole map that follows `y`, after its norm. */
  private async store(y: Source, layer: LayerForm, plus: Source | null, joined: Source | null): Promise<Source> {
    const data = new Float32Array(y.channels * y.height * y.width);
    const found = await this.measure(y, (part, top, left, h, w) => {
      for (let c = 0, at = 0; c < y.channels; c++) {
        for (let row = 0; row < h; row++, at += w) {
          data.set(part.subarray(at, at + w), (c * y.height + top + row) * y.width + left);
        }
      }
    });
    const affine = layer.scale ? affineOf(this.kernels, layer, found) : null;
    const rows = Math.max(1, Math.floor((this.side * this.side) / y.width));
    const whole = mapSource(data, y.channels, y.height, y.width);
    for (let top = 0; top < y.height; top += rows) {
      const h = Math.min(rows, y.height - top);
      const part = await this.settled(whole, layer, affine, plus, joined).read(top, 0, h, y.width);
      const size = h * y.width;
      for (let c = 0; c < y.channels; c++) data.set(part.subarray(c * size, (c + 1) * size), (c * y.height + top) * y.width);
    }
    return whole;
  }

  /** What follows a convolution: norm, ReLU, the block's input, the shortcut. */
  private settled(y: Source, layer: LayerForm, affine: Affine | null, plus: Source | null, joined: Source | null): Source {
    const gain = layer.gain ? (this.kernels[layer.gain].data as Float32Array) : null;
    return {
      ...y,
      read: async (top, left, h, w) => {
        const part = await y.read(top, left, h, w);
        normalise(part, y.channels, affine, layer.relu);
        if (plus) addTo(part, await plus.read(top, left, h, w), y.channels, null);
        if (joined) addTo(part, await joined.read(top, left, h, w), y.channels, gain);
        return part;
      },
    };
  }

  private async finish(y: Source): Promise<Pixels> {
    const { width, height } = this.photo;
    const data = new Uint8ClampedArray(width * height * 4);
    const sigmoid = this.runtime.models.network.output === "sigmoid";
    await this.each(y, (part, top, left, h, w) => {
      const size = h * w;
      for (let row = 0, i = 0; row < h; row++) {
        let at = ((top + row) * width + left) * 4;
        for (let column = 0; column < w; column++, i++, at += 4) {
          for (let c = 0; c < 3; c++) {
            const value = part[c * size + i];
            data[at + c] = 255 * (sigmoid ? 1 / (1 + Math.exp(-value)) : value + 0.5);
          }
          data[at + 3] = this.photo.data[at + 3];
        }
      }
    });
    return { width, height, data };
  }

  private async bind(stride: number): Promise<(x: Values, size: number[], layer: LayerForm) => Promise<Values>> {
    const session = await this.runtime.session(stride === 1 ? "convolve1" : "convolve2");
    return async (x, [height, width], layer) => {
      const w = this.kernels[layer.weight];
      const b = layer.bias ? this.kernels[layer.bias] : this.runtime.tensor(new Float32Array(layer.outputs), [layer.outputs]);
      const input = this.runtime.tensor(x as Float32Array, [1, layer.inputs, height, width]);
      const { y } = await session.run({ x: input, w, b });
      const found = y.data as Float32Array;
      const copy = found.slice(); // the runtime may use the memory again
      y.dispose();
      return copy;
    };
  }

  /** How many numbers are made in all, for the progress. */
  private count(): number {
    const pixels = this.photo.width * this.photo.height;
    let stride = 1;
    let total = 0;
    for (const layer of this.layers) {
      stride = layer.up ? stride / 2 : stride * layer.stride;
      if (stride > 1 || layer.scale || layer === this.layers.at(-1)) total += (layer.outputs * pixels) / (stride * stride);
    }
    return total;
  }
}

function photoSource(photo: Pixels): Source {
  const { width, height, data } = photo;
  return {
    channels: 3,
    height,
    width,
    read: (top, left, h, w) => {
      const found = new Float32Array(3 * h * w);
      for (let row = 0, i = 0; row < h; row++) {
        let at = ((top + row) * width + left) * 4;
        for (let column = 0; column < w; column++, i++, at += 4) {
          for (let c = 0; c < 3; c++) found[c * h * w + i] = data[at + c] / 255 - 0.5;
        }
      }
      return found;
    },
  };
}

function mapSource(data: Values, channels: number, height: number, width: number): Source {
  return {
    channels,
    height,
    width,
    read: (top, left, h, w) => {
      const found = new Float32Array(channels * h * w);
      for (let c = 0, at = 0; c < channels; c++) {
        for (let row = 0; row < h; row++, at += w) {
          const from = (c * height + top + row) * width + left;
          found.set(data.subarray(from, from + w), at);
        }
      }
      return found;
    },
  };
}

/** Every pixel twice in each direction. */
function doubled(x: Source): Source {
  return {
    channels: x.channels,
    height: 2 * x.height,
    width: 2 * x.width,
    read: async (top, left, h, w) => {
      const [t, l] = [top >> 1, left >> 1];
      const [rows, columns] = [((top + h - 1) >> 1) - t + 1, ((left + w - 1) >> 1) - l + 1];
      const part = await x.read(t, l, rows, columns);
      const found = new Float32Array(x.channels * h * w);
      for (let c = 0, at = 0; c < x.channels; c++) {
        for (let row = 0; row < h; row++) {
          const from = (c * rows + ((top + row) >> 1) - t) * columns - l;
          for (let column = left; column < left + w; column++) found[at++] = part[from + (column >> 1)];
        }
      }
      return found;
    },
  };
}

/** The last row and column repeated up to that size. */
function extended(y: Source, height: number, width: number): Source {
  if (y.height === height && y.width === width) return y;
  const read: Source["read"] = async (top, left, h, w) => {
    const [t, l] = [Math.min(top, y.height - 1), Math.min(left, y.width - 1)];
    const [rows, columns] = [Math.min(top + h, y.height) - t || 1, Math.min(left + w, y.width) - l || 1];
    const part = await y.read(t, l, rows, columns);
    const at = (extent: number, first: number, start: number, count: number) =>
      Int32Array.from({ length: extent }, (_, i) => Math.min(count - 1, start + i - first));
    return pick(part, y.channels, rows, columns, at(h, t, top, rows), at(w, l, left, columns));
  };
  return { channels: y.channels, height, width, read };
}

/** A part that may reach beyond the edges, where the picture is mirrored. */
async function mirrored(x: Source, top: number, left: number, h: number, w: number): Promise<Values> {
  const [t, l] = [Math.max(0, top), Math.max(0, left)];
  const [rows, columns] = [Math.min(x.height, top + h) - t, Math.min(x.width, left + w) - l];
  const part = await x.read(t, l, rows, columns);
  if (rows === h && columns === w) return part;
  const at = (extent: number, first: number, start: number, side: number) =>
    Int32Array.from({ length: extent }, (_, i) => {
      const position = Math.abs(start + i);
      return (position < side ? position : 2 * (side - 1) - position) - first;
    });
  return pick(part, x.channels, rows, columns, at(h, t, top, x.height), at(w, l, left, x.width));
}

function pick(part: Values, channels: number, rows: number, columns: number, down: Int32Array, across: Int32Array): Values {
  const found = new Float32Array(channels * down.length * across.length);
  for (let c = 0, to = 0; c < channels; c++) {
    for (const row of down) {
      const from = (c * rows + row) * columns;
      for (const column of across) found[to++] = part[from + column];
    }
  }
  return found;
}

function addMoments(part: Values, channels: number, [total, squares]: Float64Array[]): void {
  const size = part.length / channels;
  for (let c = 0, i = 0; c < channels; c++) {
    let sum = 0, square = 0;
    for (const end = i + size; i < end; i++) {
      sum += part[i];
      square += part[i] * part[i];
    }
    total[c] += sum;
    squares[c] += square;
  }
}

function affineOf(kernels: Kernels, layer: LayerForm, [means, squares]: Float64Array[]): Affine {
  const scales = kernels[layer.scale!].data as Float32Array;
  const shifts = kernels[layer.shift!].data as Float32Array;
  const scale = means.map((mean, c) => scales[c] / Math.sqrt(Math.max(0, squares[c] - mean * mean) + EPS));
  return { scale, shift: means.map((mean, c) => shifts[c] - mean * scale[c]) };
}

function normalise(part: Values, channels: number, affine: Affine | null, relu: boolean): void {
  const size = part.length / channels;
  for (let c = 0, i = 0; c < channels; c++) {
    const scale = affine ? affine.scale[c] : 1;
    const shift = affine ? affine.shift[c] : 0;
    for (const end = i + size; i < end; i++) {
      const value = part[i] * scale + shift;
      part[i] = relu && value < 0 ? 0 : value;
    }
  }
}

function addTo(part: Values, other: Values, channels: number, gain: Float32Array | null): void {
  const size = part.length / channels;
  for (let c = 0, i = 0; c < channels; c++) {
    const factor = gain ? gain[c] : 1;
    for (const end = i + size; i < end; i++) part[i] += factor * other[i];
  }
}
