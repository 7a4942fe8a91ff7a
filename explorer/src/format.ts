// Numbers, times and names as people read them. Times are UTC throughout, as in the tables.

import type { Interval } from "./data";

const whole = new Intl.NumberFormat("en");

export const count = (n: number) => whole.format(n);

/** With as many digits as tell it from 0 and from 1. */
export function percent(share: number, digits = digitsOf(Math.min(Math.abs(share), Math.abs(1 - share)))): string {
  return `${(share * 100).toFixed(digits)}\u202f%`;
}

const digitsOf = (rest: number) => (rest === 0 || rest >= 0.1 ? 0 : rest >= 0.01 ? 1 : rest >= 0.001 ? 2 : 3);

/** Percentage points with their sign. */
export const points = (change: number) => `${change < 0 ? "−" : "+"}${Math.abs(change * 100).toFixed(1)}\u202fpp`;

export const interval = ([, low, high]: Interval) => `95\u202f% interval ${percent(low)} to ${percent(high)}`;

export const times = (factor: number) => `${factor.toFixed(factor < 10 ? 1 : 0)}×`;

const dayFormat = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const dateFormat = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", dateStyle: "medium" });
const timeFormat = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", dateStyle: "medium", timeStyle: "short" });
const clockFormat = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });

export const day = (ms: number) => dayFormat.format(ms);
export const date = (ms: number | string) => dateFormat.format(new Date(ms));
export const time = (ms: number | string) => timeFormat.format(new Date(ms));
export const clock = (ms: number) => clockFormat.format(ms);

export function dwell(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)}\u202fs`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}\u202fmin ${Math.round(seconds % 60)}\u202fs`;
  return `${Math.floor(minutes / 60)}\u202fh ${minutes % 60}\u202fmin`;
}

const LINKS: Record<string, string> = {
  in_session: "logged in during the session",
  before: "known from a login before",
  after: "known from a login after",
  ambiguous: "shared device, several accounts",
  none: "no account known",
};
export const link = (name: string) => LINKS[name] ?? name;

export const plural = (n: number, one: string, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
