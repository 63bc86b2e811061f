// Which ways to paint are offered: words for people first, other methods of the server after them.

import type { Method } from "./server";

const QUALITIES: Record<string, string> = { quick: "swift", painted: "gatys", finest: "nnst" };
/** Methods that know only the styles that they have learned. */
const FIXED = ["johnson", "conditional_norm", "stylebank", "metastyle", "texture_network"];
/** Methods that read the painting itself, not its statistics. */
const READS_PAINTING = ["nnst"];

/** The qualities, and names of other methods, that suit the styles. paintings: all of these are the visitor's own. */
export function qualitiesOf(methods: Method[] | null, paintings: boolean): string[] {
  if (methods === null) return ["quick"];
  const names = methods
    .map((method) => method.name)
    .filter((name) => !FIXED.includes(name) && (paintings || !READS_PAINTING.includes(name)));
  const known = Object.keys(QUALITIES).filter((quality) => quality === "quick" || names.includes(QUALITIES[quality]));
  return [...known, ...names.filter((name) => !Object.values(QUALITIES).includes(name))];
}

/** The method behind a quality. */
export function methodOf(quality: string): string {
  return QUALITIES[quality] ?? quality;
}
