import { useEffect, useState } from "preact/hooks";
import { onScheme } from "./colours";

export type Loaded<T> = { state: "loading" } | { state: "failed"; error: Error } | { state: "ready"; value: T };

export const asError = (thrown: unknown) => (thrown instanceof Error ? thrown : new Error(String(thrown)));

/** Something that is fetched, anew whenever what it depends on changes. What comes too late is dropped. */
export function useLoaded<T>(load: () => Promise<T>, depends: unknown[]): Loaded<T> {
  const [found, setFound] = useState<Loaded<T>>({ state: "loading" });
  useEffect(() => {
    let isWanted = true;
    setFound({ state: "loading" });
    load().then(
      (value) => isWanted && setFound({ state: "ready", value }),
      (error: unknown) => isWanted && setFound({ state: "failed", error: asError(error) }),
    );
    return () => {
      isWanted = false;
    };
  }, depends);
  return found;
}

/** Changes with the colour scheme, for what is drawn with colours of the moment. */
export function useScheme(): number {
  const [version, setVersion] = useState(0);
  useEffect(() => onScheme(() => setVersion((v) => v + 1)), []);
  return version;
}

/** The size of an element, as it changes. */
export function useSize(element: { current: HTMLElement | null }): { width: number; height: number } {
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const target = element.current;
    if (!target) return;
    const observer = new ResizeObserver(() => setSize({ width: target.clientWidth, height: target.clientHeight }));
    observer.observe(target);
    return () => observer.disconnect();
  }, []);
  return size;
}
