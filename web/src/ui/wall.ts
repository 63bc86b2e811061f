// The wall of styles: built-in ones and the visitor's own paintings, side by side.

import type { App, Style } from "../app";
import { currentLanguage, say, sayName } from "../words";
import { find, keepList, make, onFiles } from "./dom";

const ADD = "add";

export function buildWall(app: App): void {
  const wall = find("wall");
  const input = find<HTMLInputElement>("painting-file");
  const mixButton = find<HTMLButtonElement>("mix-two");
  const mix = find<HTMLInputElement>("mix");
  onFiles(input, (files) => void app.addPaintings(files));
  find("random").addEventListener("click", () => app.pick(randomStyle(app)));
  mixButton.addEventListener("click", () => app.choose({ mixing: !app.choice.mixing }));
  mix.addEventListener("input", () => app.choose({ mix: Number(mix.value) / 100 }));

  const create = (style: { id: string }): HTMLElement =>
    style.id === ADD ? addTile(() => input.click()) : styleTile(app, style as Style);

  app.onChange(() => {
    const { style, second, mixing } = app.choice;
    const items = keepList(wall, [{ id: ADD }, ...app.styles], create);
    for (const [id, item] of items) {
      if (id === ADD) {
        item.querySelector("span")!.textContent = say("ownPainting");
        item.querySelector("small")!.textContent = say("ownPaintingHint");
        continue;
      }
      if (item.lang !== currentLanguage()) nameTile(item, app.findStyle(id)!);
      const chosen = id === style || (mixing && id === second);
      const badge = item.querySelector<HTMLElement>(".badge")!;
      item.querySelector(".tile")!.setAttribute("aria-pressed", String(chosen));
      item.querySelector(".drop")?.setAttribute("aria-label", say("removePainting"));
      badge.hidden = !mixing || !chosen;
      badge.textContent = id === style ? "1" : "2";
    }
    mixButton.setAttribute("aria-pressed", String(mixing));
    find("mix-row").hidden = !mixing;
    mix.disabled = second === null;
    mix.value = String(Math.round(app.choice.mix * 100));
    find("mix-value").textContent = `${mix.value} %`;
  });
}

function styleTile(app: App, style: Style): HTMLElement {
  const words = make("span", {});
  const picture = make("img", { src: style.picture, alt: "", loading: "lazy", width: "256", height: "192" });
  const badge = make("b", { class: "badge", "aria-hidden": "true" });
  const button = make("button", { type: "button", class: "tile", "aria-pressed": "false" }, picture, words, badge);
  button.addEventListener("click", () => app.pick(style.id));
  const item = make("li", {}, button);
  if (style.file) {
    const drop = make("button", { type: "button", class: "drop" }, "×");
    drop.addEventListener("click", () => void app.removePainting(style.id));
    item.append(drop);
  }
  return item;
}

/** Title, artist and year in the language of the page. */
function nameTile(item: HTMLElement, style: Style): void {
  const words = item.querySelector("span")!;
  const by = [style.artist, style.year].filter(Boolean).map(sayName).join(currentLanguage() === "zh" ? "，" : ", ");
  words.replaceChildren(style.file ? style.title : sayName(style.title));
  if (by) words.append(make("small", {}, by));
  item.lang = currentLanguage();
}

function addTile(open: () => void): HTMLElement {
  const words = make("div", {}, make("span"), make("small"));
  const button = make("button", { type: "button", class: "tile add", id: "own-painting" }, make("b", { "aria-hidden": "true" }, "+"), words);
  button.addEventListener("click", open);
  return make("li", {}, button);
}

function randomStyle(app: App): string {
  const others = app.styles.filter((style) => style.id !== app.choice.style && style.id !== app.choice.second);
  return (others[Math.floor(Math.random() * others.length)] ?? app.styles[0]).id;
}
