// Where photos come from: files, drops, the clipboard, the example; and the strip of those that are there.

import type { App } from "../app";
import type { HistoryRecord, PhotoRecord } from "../store";
import { say } from "../words";
import { find, keepList, make, onFiles } from "./dom";

export function buildPhotos(app: App): void {
  const input = find<HTMLInputElement>("photo-file");
  onFiles(input, (files) => add(app, files));
  for (const button of document.querySelectorAll(".choose-photo")) button.addEventListener("click", () => input.click());
  find("example").addEventListener("click", async () => {
    const answer = await fetch("models/example.jpg");
    add(app, [new File([await answer.blob()], `${say("exampleName")}.jpg`, { type: "image/jpeg" })]);
  });
  listen(app);
  const strip = find("photo-strip");
  app.onChange(() => {
    const items = keepList(strip, app.photos, (photo) => photoTile(app, photo));
    for (const [id, item] of items) {
      const photo = app.photos.find((one) => one.id === id)!;
      const tile = item.querySelector(".tile")!;
      tile.setAttribute("aria-pressed", String(id === app.choice.photo));
      tile.setAttribute("aria-label", say("photoNamed", photo.name));
      item.querySelector(".drop")!.setAttribute("aria-label", say("removePhoto"));
    }
    find("photos").classList.toggle("none", app.photos.length === 0);
    find("download-all").hidden = app.photos.length < 2;
  });
  buildHistory(app);
}

function add(app: App, files: File[]): void {
  if (files.length === 0) return;
  if (window.matchMedia("(max-width: 55rem)").matches) find("result").scrollIntoView({ block: "start" });
  void app.addPhotos(files);
}

function listen(app: App): void {
  const frame = find("frame");
  const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    frame.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) frame.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    frame.classList.remove("over");
    if (!holdsFiles(event)) return;
    event.preventDefault();
    const files = [...event.dataTransfer!.files];
    if ((event.target as Element).closest?.("#wall")) void app.addPaintings(files);
    else add(app, files);
  });
  document.addEventListener("paste", (event) => add(app, [...(event.clipboardData?.files ?? [])]));
}

function photoTile(app: App, photo: PhotoRecord): HTMLElement {
  const picture = make("img", { src: URL.createObjectURL(photo.file), alt: "" });
  const tile = make("button", { type: "button", class: "tile" }, picture);
  tile.addEventListener("click", () => app.choose({ photo: photo.id }));
  const drop = make("button", { type: "button", class: "drop" }, "×");
  drop.addEventListener("click", () => {
    URL.revokeObjectURL(picture.src);
    void app.removePhoto(photo.id);
  });
  return make("li", {}, tile, drop);
}

function buildHistory(app: App): void {
  const strip = find("history-strip");
  find("clear-history").addEventListener("click", () => void app.clearHistory());
  app.onChange(() => {
    const items = keepList(strip, app.history, (record) => historyTile(app, record));
    for (const [id, item] of items) {
      const record = app.history.find((one) => one.id === id)!;
      const tile = item.querySelector<HTMLButtonElement>(".tile")!;
      tile.setAttribute("aria-label", say("again", record.photoName, record.styleName));
      tile.disabled = !app.photos.some((photo) => photo.id === record.choice.photo);
    }
    find("history").hidden = app.history.length === 0;
  });
}

function historyTile(app: App, record: HistoryRecord): HTMLElement {
  const picture = make("img", { src: URL.createObjectURL(record.thumb), alt: "" });
  const tile = make("button", { type: "button", class: "tile" }, picture);
  tile.addEventListener("click", () => void app.goBack(app.history.find((one) => one.id === record.id) ?? record));
  return make("li", {}, tile);
}
