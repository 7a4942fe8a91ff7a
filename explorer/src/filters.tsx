// Which sessions are looked at: the same choice on the map and in the list, kept in the address.

import type { Points } from "./api";
import type { Overview } from "./data";
import { Select } from "./parts";

const NAMES = ["intent", "outcome", "linked", "device", "source", "from", "to"] as const;
const NO_INTENT = 65535;
const OTHER = 255;
const REST = "*"; // in the address: what has no name of its own
const DAY = 86_400_000;

export const isFiltered = (query: URLSearchParams) => NAMES.some((name) => query.get(name));

/** The query without any choice. */
export function unfiltered(query: URLSearchParams): URLSearchParams {
  const rest = new URLSearchParams(query);
  for (const name of [...NAMES, "page"]) rest.delete(name);
  return rest;
}

/** The rows that are wanted. */
export function matching(about: Overview, points: Points, query: URLSearchParams): number[] {
  const intent = query.get("intent");
  const tests: ((i: number) => boolean)[] = [];
  const is = (column: ArrayLike<number>, wanted: number) => tests.push((i) => column[i] === wanted);
  if (intent) is(points.intent, intent === "none" ? NO_INTENT : about.intents.findIndex((row) => row.id === intent));
  for (const name of ["outcome", "linked"] as const) {
    const value = query.get(name);
    if (value) is(points[name], Number(value));
  }
  for (const name of ["device", "source"] as const) {
    const value = query.get(name);
    if (value) is(points[name], value === REST ? OTHER : (about.points.names[name] ?? []).indexOf(value));
  }
  const from = Date.parse(query.get("from") ?? "");
  const to = Date.parse(query.get("to") ?? "");
  if (!Number.isNaN(from)) tests.push((i) => points.start[i]! * 60_000 >= from);
  if (!Number.isNaN(to)) tests.push((i) => points.start[i]! * 60_000 < to + DAY);
  const found: number[] = [];
  for (let i = 0; i < points.n; i++) if (tests.every((test) => test(i))) found.push(i);
  return found;
}

export function Filters({
  about,
  query,
  change,
}: {
  about: Overview;
  query: URLSearchParams;
  change: (query: URLSearchParams) => void;
}) {
  const set = (name: string) => (value: string) => {
    const changed = new URLSearchParams(query);
    changed.delete("page");
    if (value) changed.set(name, value);
    else changed.delete(name);
    change(changed);
  };
  const choice = (name: string, label: string, options: [value: string, label: string][]) => (
    <Select label={label} value={query.get(name) ?? ""} change={set(name)} options={[["", "any"], ...options]} />
  );
  const named = (names: string[] = []): [string, string][] => [
    ...names.map((name): [string, string] => [name, name]),
    [REST, "other"],
  ];
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  const date = (name: string, label: string) => (
    <label>
      {label}
      <input
        type="date"
        value={query.get(name) ?? ""}
        min={day(about.from)}
        max={day(about.to)}
        onChange={(event) => set(name)(event.currentTarget.value)}
      />
    </label>
  );
  const { device, source } = about.points.names;
  return (
    <>
      {choice("intent", "Intent", [
        ["none", "no intent"],
        ...about.intents.map((row): [string, string] => [row.id, row.name]),
      ])}
      {about.rate &&
        choice("outcome", "Converted", [
          ["2", "yes"],
          ["1", "no"],
          ["0", "not known"],
        ])}
      {choice("linked", "Linked to an account", [
        ["1", "yes"],
        ["0", "no"],
      ])}
      {choice("source", "Came from", named(source))}
      {choice("device", "Device", named(device))}
      {date("from", "From (UTC)")}
      {date("to", "To (inclusive)")}
    </>
  );
}
