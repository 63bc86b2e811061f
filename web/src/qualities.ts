// Which ways to paint are offered: words for people first, other methods of the server after them.

import type { Method } from "./server";

/** The methods behind each word, the best first: which of them paints depends on the style. */
const QUALITIES: Record<string, string[]> = {
  quick: ["swift"],
  painted: ["johnson", "conditional_norm", "nnst_d"],
  finest: ["nnst"],
};

/** A style as far as it decides who can paint it: a built-in one, or a painting of the visitor's own. */
export interface Wanted {
  id: string;
  own: boolean;
}

/** The methods that can paint all of these styles. */
function suiting(methods: Method[] | null, styles: Wanted[]): Method[] {
  const knows = (method: Method, style: Wanted) => (style.own ? method.paintings : method.styles.includes(style.id));
  return (methods ?? []).filter((method) => styles.every((style) => knows(method, style)));
}

/** The method that paints these styles in a quality; undefined: none can. */
export function methodOf(quality: string, methods: Method[] | null, styles: Wanted[]): Method | undefined {
  const found = suiting(methods, styles);
  const names = QUALITIES[quality] ?? [quality];
  return names.flatMap((name) => found.filter((method) => method.name === name))[0];
}

/** The qualities that suit the styles. */
export function qualitiesOf(methods: Method[] | null, styles: Wanted[]): string[] {
  return Object.keys(QUALITIES).filter((quality) => quality === "quick" || methodOf(quality, methods, styles));
}

/** The names of other methods that suit the styles. */
export function othersOf(methods: Method[] | null, styles: Wanted[]): string[] {
  const used = Object.keys(QUALITIES).map((quality) => methodOf(quality, methods, styles)?.name ?? quality);
  return suiting(methods, styles)
    .map((method) => method.name)
    .filter((name) => !used.includes(name) && !QUALITIES.quick.includes(name));
}
