// Small pieces that several pages share.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { LoadError } from "./api";
import { colourClass, cssColour } from "./colours";
import type { Interval, Overview, Pages, Session } from "./data";
import { count, interval, percent } from "./format";
import { asError, type Loaded, useScheme, useSize } from "./hooks";

export function Wait<T>({ of, children }: { of: Loaded<T>; children: (value: T) => ComponentChildren }) {
  if (of.state === "loading")
    return (
      <p class="wait" role="status">
        Loading…
      </p>
    );
  if (of.state === "failed") return <Failure error={of.error} />;
  return <>{children(of.value)}</>;
}

export function Failure({ error }: { error: Error }) {
  const isRefused = error instanceof LoadError && (error.status === 401 || error.status === 403);
  return (
    <p class="failure" role="alert">
      {error.message} {isRefused && <a href="#/key">Use another key</a>}
    </p>
  );
}

/** A button for something that may fail, which is then said. */
export function Failing({
  act,
  disabled = false,
  children,
}: {
  act: () => Promise<void>;
  disabled?: boolean;
  children: ComponentChildren;
}) {
  const [error, setError] = useState<Error | null>(null);
  const [isBusy, setBusy] = useState(false);
  const run = async () => {
    setError(null);
    setBusy(true);
    try {
      await act();
    } catch (found) {
      setError(asError(found));
    }
    setBusy(false);
  };
  return (
    <>
      <button type="button" disabled={disabled || isBusy} onClick={run}>
        {children}
      </button>
      {error && <Failure error={error} />}
    </>
  );
}

export function Select({
  label,
  value,
  change,
  options,
}: {
  label: string;
  value: string;
  change: (value: string) => void;
  options: [value: string, label: string][];
}) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => change(event.currentTarget.value)}>
        {options.map(([id, name]) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

export const intentLink = (id: string) => `#/intents/${encodeURIComponent(id)}`;
/** Session `i` of the map; its id tells whether the link is of the same data. */
export const sessionLink = (i: number, { id }: Session) => `#/sessions/${i}${id && `/${encodeURIComponent(id)}`}`;

/** An intent's name with its colour; −1 is none. */
export function Name({ about, intent }: { about: Overview; intent: number }) {
  const found = about.intents[intent];
  return (
    <span class="name">
      <i class={`dot ${colourClass(found ? intent : -1)}`} aria-hidden="true" />
      {found ? <a href={intentLink(found.id)}>{found.name}</a> : <span class="muted">no intent</span>}
    </span>
  );
}

export function Page({ pages, page }: { pages: Pages; page: number }) {
  const found = pages.pages[page];
  if (!found) return <span class="muted">?</span>;
  return found.title ? (
    <span class="page">
      {found.title} <code>{found.page}</code>
    </span>
  ) : (
    <code>{found.page}</code>
  );
}

export const pageName = (pages: Pages, page: number) => pages.pages[page]?.title ?? pages.pages[page]?.page ?? "?";

/** A share as a bar, with a tick for what it is compared with. */
export function Bar({
  share,
  of = 1,
  tick,
  colour = "accent",
}: {
  share: number;
  of?: number;
  tick?: number;
  colour?: string;
}) {
  const width = (value: number) => `${Math.min(100, of > 0 ? (value / of) * 100 : 0).toFixed(2)}`;
  return (
    <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="track" width="100" height="10" />
      <rect class={`fill-${colour}`} width={width(share)} height="10" />
      {tick !== undefined && <rect class="tick" x={width(tick)} width="0.8" height="10" />}
    </svg>
  );
}

/** A rate with its interval, on a scale that all rows of a table share. */
export function Rate({ rate, most, base }: { rate: Interval | null; most: number; base?: number | undefined }) {
  if (!rate) return <span class="muted">–</span>;
  const at = (value: number) => Math.min(100, most > 0 ? (value / most) * 100 : 0);
  const [value, low, high] = rate.map(at) as [number, number, number];
  return (
    <span class="rate" title={interval(rate)}>
      <span class="num">{percent(rate[0])}</span>
      <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        <rect class="track" y="4" width="100" height="2" />
        {base !== undefined && <rect class="tick" x={at(base)} width="0.8" height="10" />}
        <rect class="fill-quiet" x={low} y="3" width={Math.max(high - low, 0.5)} height="4" />
        <rect class="fill-accent" x={value - 0.8} width="1.6" height="10" />
      </svg>
    </span>
  );
}

/** Numbers by bin without those of bins that were not seen as a whole: half a week is no fall. */
export const whole = (about: Overview, series: number[]) => series.filter((_, bin) => !about.partial.includes(bin));

/** A row's numbers over time, without axes. */
export function Spark({ series, label }: { series: number[]; label: string }) {
  const most = Math.max(...series, 1);
  const step = series.length > 1 ? 100 / (series.length - 1) : 0;
  const line = series.map((n, i) => `${(i * step).toFixed(1)},${(22 - (n / most) * 20).toFixed(1)}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label={label}>
      <polyline points={line} />
    </svg>
  );
}

export interface Line {
  name: string;
  colour: string; // of the style sheet
  values: (number | null)[];
}

const NONE: number[] = [];

/** Lines over time, or areas on top of each other. What it shows is in a table, too. */
export function Trend({
  times,
  lines,
  partial = NONE,
  stacked = false,
  shares = false,
  label,
}: {
  times: number[]; // ms
  partial?: number[]; // places of times that were not seen as a whole: they are paler
  lines: Line[];
  stacked?: boolean;
  shares?: boolean;
  label: string;
}) {
  const box = useRef<HTMLDivElement>(null);
  const { width } = useSize(box);
  const scheme = useScheme();
  useEffect(() => {
    if (!box.current || width === 0 || times.length === 0) return;
    const ink = cssColour("muted");
    const rule = cssColour("rule");
    const tops = stacked ? stack(lines) : lines.map((line) => line.values);
    const order = lines.map((_, i) => i);
    if (stacked) order.reverse(); // the whole first, what lies in front of it later
    const show = (value: number) => (shares ? percent(value) : count(value));
    const axis = { stroke: ink, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1 } };
    const plot = new uPlot(
      {
        width,
        height: 260,
        tzDate: (s) => uPlot.tzDate(new Date(s * 1000), "UTC"),
        scales: {
          y: { range: (_, low, high) => [shares ? Math.min(0, low) : 0, Math.max(high * 1.05, shares ? 0.01 : 1)] },
        },
        axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map(show) }],
        hooks: { draw: [(drawn) => fade(drawn, partial)] },
        legend: { live: true },
        cursor: { points: { show: !stacked } },
        series: [
          { label: "time", value: "{YYYY}-{MM}-{DD}" },
          ...order.map((i) => {
            const { name, colour, values } = lines[i]!;
            const paint = cssColour(colour);
            return {
              label: name,
              stroke: paint,
              width: stacked ? 0.5 : 2,
              ...(stacked ? { fill: paint } : {}),
              points: { show: !stacked && times.length < 3 },
              // a stacked area ends at the sum; what is told is its own share of it
              value: (_: uPlot, __: number, ___: number, at: number | null) => {
                const own = at === null ? null : values[at];
                return own === null || own === undefined ? "–" : show(own);
              },
            } satisfies uPlot.Series;
          }),
        ],
      },
      [times.map((t) => t / 1000), ...order.map((i) => tops[i]!)],
      box.current,
    );
    return () => plot.destroy();
  }, [times, lines, partial, width, scheme, stacked, shares]);
  return <div class="trend" ref={box} role="img" aria-label={label} />;
}

/** Lay paper over the stretches of a plot that lead to these places. */
function fade({ ctx, bbox, data, valToPos }: uPlot, places: number[]) {
  ctx.save();
  ctx.fillStyle = cssColour("card");
  ctx.globalAlpha = 0.65;
  for (const place of places) {
    const from = valToPos(data[0][Math.max(place - 1, 0)]!, "x", true);
    const to = valToPos(data[0][place || 1] ?? data[0][place]!, "x", true);
    ctx.fillRect(from, bbox.top, to - from, bbox.height);
  }
  ctx.restore();
}

/** Says which stretches of a plot over time are paler, and why. */
export function Partial({ about }: { about: Overview }) {
  if (about.partial.length === 0) return null;
  const ends = about.partial.map((bin) => (bin === 0 ? "first" : "last")).join(" and the ");
  return (
    <p class="muted">
      Paler: the {ends} {about.bin}, of which only a part was seen.
    </p>
  );
}

function stack(lines: Line[]): number[][] {
  const tops: number[][] = [];
  for (const line of lines) {
    const below = tops.at(-1);
    tops.push(line.values.map((value, i) => (value ?? 0) + (below?.[i] ?? 0)));
  }
  return tops;
}

/** A key figure. */
export function Tile({ label, value, note }: { label: string; value: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{value}</dd>
      {note && <dd class="note">{note}</dd>}
    </div>
  );
}
