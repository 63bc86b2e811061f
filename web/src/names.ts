// Names, words and small pictures for what the page shows and saves.

import { PaintError } from "./engine/client";
import type { BuiltInStyle } from "./engine/models";
import { ServerError } from "./server";
import type { PaintingRecord } from "./store";
import { say, type Word } from "./words";

export interface Style {
  id: string;
  title: string;
  artist: string;
  year: string;
  picture: string;
  numbers?: number[];
  file?: Blob;
}

/** What went wrong, for people. */
export function explain(error: unknown): string {
  if (error instanceof ServerError) {
    const known: Record<number, Word> = { 0: "errorGone", 413: "errorTooLarge", 429: "errorBusy", 503: "errorBusy" };
    const technical = /impasto |--|\/[0-9a-f]{6}/.test(error.message); // meant for the command line
    return say(known[error.status] ?? (technical ? "errorFault" : "errorServer"), error.message);
  }
  const words: Record<string, Word> = { picture: "errorPicture", memory: "errorMemory", load: "errorLoad" };
  return say((error instanceof PaintError && words[error.reason]) || "errorFault");
}

export function builtIn(style: BuiltInStyle): Style {
  const { name, title = name, artist = "", year = "", picture, numbers } = style;
  return { id: name, title, artist, year, picture: `models/${picture}`, numbers };
}

export function own(record: PaintingRecord): Style {
  return { id: record.id, title: record.name, artist: "", year: "", picture: URL.createObjectURL(record.file), file: record.file };
}

export function stem(name: string): string {
  return name.replace(/\.[^.]*$/, "") || "photo";
}

/** A part of a file's name that every system takes. */
export function slug(name: string): string {
  const plain = name.normalize("NFC").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return plain.slice(0, 60) || "photo";
}

export async function smallPicture(bitmap: ImageBitmap): Promise<Blob> {
  const scale = Math.min(1, 192 / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d")!.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(blob!), "image/jpeg", 0.85));
}
