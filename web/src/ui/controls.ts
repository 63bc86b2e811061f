// Status, options, and what is done with a finished picture.

import type { App } from "../app";
import type { PhotoRecord } from "../store";
import { remember } from "../store";
import { currentLanguage, say, speak, type Word } from "../words";
import { find, make, save } from "./dom";

const SIZES = [512, 768, 1024, 1536, 2048, 3072, 4096];

export function buildControls(app: App): void {
  buildOptions(app);
  buildActions(app);
  app.onChange(() => showStatus(app));
  find("language").addEventListener("click", () => {
    const wish = currentLanguage() === "zh" ? "en" : "zh";
    remember("language", wish);
    setLanguage(app, wish);
  });
}

export function setLanguage(app: App, wish: "en" | "zh"): void {
  speak(wish);
  find("language").lang = wish === "zh" ? "en" : "zh-CN";
  app.changed();
}

function buildOptions(app: App): void {
  const strength = find<HTMLInputElement>("strength");
  const colours = find<HTMLInputElement>("colours");
  const size = find<HTMLSelectElement>("size");
  const method = find<HTMLSelectElement>("method");
  strength.addEventListener("input", () => app.choose({ strength: Number(strength.value) / 100 }));
  colours.addEventListener("change", () => app.choose({ colours: colours.checked }));
  size.addEventListener("change", () => app.choose({ longer: size.value ? Number(size.value) : null }));
  method.addEventListener("change", () => app.choose({ quality: method.value }));
  app.onChange(() => {
    strength.value = String(Math.round(app.choice.strength * 100));
    find("strength-value").textContent = `${strength.value} %`;
    colours.checked = app.choice.colours;
    const photo = app.findPhoto();
    const longest = photo ? Math.max(photo.width, photo.height) : Infinity;
    const sizes = SIZES.filter((side) => side < longest || side === app.choice.longer);
    fill(size, [["", say("sizeAuto")], ...sizes.map((side) => [String(side), say("sizePixels", side)] as const)], String(app.choice.longer ?? ""));
    showQualities(app, method);
    const device = app.engine.device;
    find("device").textContent = device ? say("device", say(device)) + (device === "wasm" ? ` ${say("noGpu")}` : "") : "";
  });
}

function showQualities(app: App, method: HTMLSelectElement): void {
  const main = app.qualities();
  const other = app.otherMethods();
  find("quality").hidden = main.length < 2;
  find("method-row").hidden = other.length === 0;
  const box = find("qualities");
  const wanted = main.join() + currentLanguage();
  if (box.dataset.shown !== wanted) {
    box.dataset.shown = wanted;
    box.replaceChildren(...main.map((quality) => qualityChoice(app, quality)));
  }
  for (const input of box.querySelectorAll("input")) input.checked = input.value === app.choice.quality;
  write("quality-hint", main.includes(app.choice.quality) ? say(`${app.choice.quality}Hint` as Word) : say("other", app.choice.quality));
  fill(method, [["quick", say("methodAuto")], ...other.map((name) => [name, name] as const)], other.includes(app.choice.quality) ? app.choice.quality : "quick");
}

function qualityChoice(app: App, quality: string): HTMLElement {
  const input = make("input", { type: "radio", name: "quality", value: quality });
  input.addEventListener("change", () => app.choose({ quality }));
  return make("label", {}, input, say(quality as Word));
}

function fill(select: HTMLSelectElement, choices: (readonly [string, string])[], value: string): void {
  const wanted = JSON.stringify(choices);
  if (select.dataset.shown !== wanted) {
    select.dataset.shown = wanted;
    select.replaceChildren(...choices.map(([name, text]) => make("option", { value: name }, text)));
  }
  select.value = value;
}

function showStatus(app: App): void {
  const bar = find<HTMLProgressElement>("progress");
  const camera = app.activity === "camera";
  if (!camera) write("status", statusOf(app));
  write("error", app.error);
  bar.hidden = !app.working;
  if (app.share === null || app.share === 0) bar.removeAttribute("value");
  else bar.value = app.share;
  const usable = app.view !== null && app.findPhoto() !== null;
  find("paint").hidden = camera || !app.onServer || app.working || (app.view !== null && !app.stale && !app.view.unfinished);
  find<HTMLButtonElement>("paint").disabled = app.findPhoto() === null;
  find("stop").hidden = !app.working;
  find("download").hidden = find("format").hidden = camera;
  find<HTMLButtonElement>("download").disabled = !usable || app.activity === "saving";
  find("share").hidden = camera || !usable || !("share" in navigator);
  for (const id of ["snapshot", "record", "stop-camera"]) find(id).hidden = !camera;
  for (const button of document.querySelectorAll<HTMLElement>(".open-camera")) button.hidden = !("mediaDevices" in navigator);
}

/** Say something only if it is new, so that screen readers don't repeat it. */
function write(id: string, text: string): void {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
}

function statusOf(app: App): string {
  if (app.message) return app.message;
  const { activity, share } = app;
  if (activity === "loading") return say("loading");
  if (activity === "painting" || activity === "saving") {
    if (!share) return say("painting");
    const shown = Math.floor(share * 10) * 10; // tens only: a live region must not talk all the time
    return [say(activity === "saving" ? "saving" : "paintingShare", shown), timeLeft(app.secondsLeft())].filter(Boolean).join(say("comma"));
  }
  const photo = app.findPhoto();
  if (photo === null) return say("ready");
  if (app.view === null) return "";
  if (app.bare && app.onServer) return say("pressPaint", say("paint"));
  if (app.stale) return say("stale");
  if (app.view.unfinished) return say("stoppedEarly");
  const { width, height } = app.view.painted;
  const told = app.view.full ? say("done", width, height) : say("preview", width, height, photo.width, photo.height);
  return [told, ...app.notes.map((note) => noteOf(note, width, height))].join(" ");
}

/** A note of the server in the reader's words, where the page knows it. */
function noteOf(note: string, width: number, height: number): string {
  const shrunk = /shrunk from (\d+)x(\d+)/.exec(note);
  return shrunk ? say("shrunk", shrunk[1], shrunk[2], width, height) : say("serverNote", note);
}

function timeLeft(seconds: number | null): string {
  if (seconds === null) return "";
  if (seconds > 90) return say("minutesLeft", Math.ceil(seconds / 60));
  return say("secondsLeft", Math.max(5, Math.ceil(seconds / 5) * 5));
}

function buildActions(app: App): void {
  const type = () => find<HTMLSelectElement>("format").value;
  find("paint").addEventListener("click", () => void app.paintByServer());
  find("stop").addEventListener("click", () => void app.stop());
  find("download").addEventListener("click", () => void download(app, [app.findPhoto()!], type()));
  find("download-all").addEventListener("click", () => void download(app, [...app.photos], type()));
  find("share").addEventListener("click", () => void share(app, type()));
}

async function download(app: App, photos: PhotoRecord[], type: string): Promise<void> {
  try {
    for (const photo of photos) {
      const name = app.fileName(photo, type);
      save(await app.export(photo, type), name);
      app.message = say("saved", name);
      app.changed();
    }
  } catch (error) {
    app.fail(error);
  }
}

async function share(app: App, type: string): Promise<void> {
  const photo = app.findPhoto();
  if (photo === null) return;
  try {
    const file = new File([await app.export(photo, type)], app.fileName(photo, type), { type });
    if (!navigator.canShare?.({ files: [file] })) throw new Error("no files");
    await navigator.share({ files: [file], title: "Impasto" });
  } catch (error) {
    if ((error as Error).name === "AbortError") return;
    app.note("idle");
    app.error = say("errorShare");
    app.changed();
  }
}
