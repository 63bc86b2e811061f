// Words in the language of the reader, and elements that follow a change of it.

import { english, type Word } from "./words/en";
import { chinese, works } from "./words/zh";

export type { Word };
export type Language = "en" | "zh";

let language: Language = "en";

export function preferred(): Language {
  return navigator.languages.some((name) => name.toLowerCase().startsWith("zh")) ? "zh" : "en";
}

export function currentLanguage(): Language {
  return language;
}

/** A sentence, with {0}, {1} ... replaced. */
export function say(word: Word, ...values: (string | number)[]): string {
  const text = (language === "zh" ? chinese : english)[word];
  return text.replace(/\{(\d)\}/g, (_, i) => String(values[Number(i)]));
}

/** The name of a work, or of whoever painted it, or when; what is not known stays as it is. */
export function sayName(name: string): string {
  return language === "zh" ? (works[name] ?? name.replace(/^about /, "约 ")) : name;
}

/** Put all of the document into that language: `data-word`, `data-label`, `data-title`. */
export function speak(wish: Language): void {
  language = wish;
  document.documentElement.lang = wish === "zh" ? "zh-CN" : "en";
  document.documentElement.dataset.words = wish;
  document.title = say("title");
  for (const element of document.querySelectorAll<HTMLElement>("[data-word]")) {
    element.textContent = say(element.dataset.word as Word);
  }
  for (const element of document.querySelectorAll<HTMLElement>("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label as Word));
  }
}
