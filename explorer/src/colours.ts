// The colour of an intent is its place among the most frequent ones; the rest share a grey.

export const COLOURS = 10;

export const colourClass = (index: number) => (index >= 0 && index < COLOURS ? `c${index}` : "cx");

/** A colour of the style sheet as it is now, light or dark. */
export const cssColour = (name: string) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Low to high, for numbers on the map. */
export const RAMP = ["r0", "r1", "r2", "r3", "r4"];

const dark = matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => dark.matches;

/** Calls back when the colour scheme changes; gives what ends it. */
export function onScheme(changed: () => void): () => void {
  dark.addEventListener("change", changed);
  return () => dark.removeEventListener("change", changed);
}
