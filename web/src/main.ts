// The page begins here.

import "./page.css";
import { App } from "./app";
import { Engine } from "./engine/client";
import { runtimeFiles, type Device, type Models } from "./engine/models";
import { findMethods, hasClassicPage } from "./server";
import { recall } from "./store";
import { Camera } from "./ui/camera";
import { buildControls, setLanguage } from "./ui/controls";
import { find } from "./ui/dom";
import { buildPhotos } from "./ui/photos";
import { Viewer } from "./ui/viewer";
import { buildWall } from "./ui/wall";
import { preferred, say, speak, type Language } from "./words";

const query = new URLSearchParams(location.search);
const base = new URL(".", location.href).href;
const device = (query.get("device") ?? "auto") as Device | "auto";
const number = (name: string) => (query.has(name) ? Number(query.get(name)) : null);
const engine = new Engine({ base, device, tile: number("tile"), piece: number("piece") });
const app = new App(engine);

speak(recall<Language>("language") ?? preferred());
buildWall(app);
buildPhotos(app);
const viewer = new Viewer(app);
new Camera(app, viewer);
buildControls(app);
void begin();

async function begin(): Promise<void> {
  const opened = engine.open(); // while the lists are fetched
  opened.catch(() => undefined);
  try {
    const answer = await fetch("models/models.json");
    if (!answer.ok) throw new Error(String(answer.status));
    const [models, methods] = await Promise.all([answer.json() as Promise<Models>, findMethods()]);
    await app.begin(models, methods);
    setLanguage(app, recall<Language>("language") ?? preferred());
    find("tagline").dataset.word = methods === null ? "tagline" : "taglineServer";
    find("tagline").textContent = say(methods === null ? "tagline" : "taglineServer");
    find("classic").hidden = methods === null || !hasClassicPage();
    keepOffline(await opened);
    app.changed();
  } catch (error) {
    app.fail(error);
    app.error = say("errorLoad");
    app.changed();
  }
}

/** Let the page work without a connection from now on: the worker keeps what this device needs. */
function keepOffline(used: Device): void {
  if (!("serviceWorker" in navigator) || import.meta.env.DEV) return;
  navigator.serviceWorker.onmessage = (event) => {
    if (event.data === "kept") document.documentElement.dataset.offline = "ready";
  };
  void navigator.serviceWorker.register("sw.js").then(async () => {
    const registration = await navigator.serviceWorker.ready;
    const files = [...runtimeFiles(used), "models/style.onnx"].map((file) => base + file);
    registration.active?.postMessage({ keep: files });
  });
}
