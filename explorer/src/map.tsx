import {
  type DataPoint,
  EmbeddingView,
  type Point,
  type Rectangle,
  type ViewportState,
} from "embedding-atlas/component";
import KDBush from "kdbush";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { COLOURS, colourClass, cssColour, isDark, RAMP } from "./colours";
import type { Overview } from "./data";
import { Filters, isFiltered, matching, unfiltered } from "./filters";
import { count, percent, plural, time, times } from "./format";
import { useLoaded, useScheme, useSize } from "./hooks";
import { Bar, Name, Select, Wait } from "./parts";
import { Strips } from "./session";
import { Downloaded } from "./sessions";

export function MapPage({ about, query }: { about: Overview; query: URLSearchParams }) {
  const points = useLoaded(() => api.points(about), []);
  if (about.points.n === 0) {
    return (
      <section class="card narrow">
        <h1>No map</h1>
        <p>
          {about.sessions === 0 ? "No session has been read yet." : "This explorer was made without single sessions."}
        </p>
      </section>
    );
  }
  return <Wait of={points}>{(found) => <SessionMap about={about} all={found} query={query} />}</Wait>;
}

type Colouring = "intent" | "confidence" | "converted" | "linked";
type Area = Rectangle | Point[];

/** What a colour on the map stands for. */
interface Legend {
  category: Uint8Array<ArrayBuffer>; // by point
  colours: string[]; // of the style sheet, by category
  names: string[];
}

function legendOf(about: Overview, points: api.Points, by: Colouring, chosen: number[]): Legend {
  const category = new Uint8Array(points.n);
  if (by === "intent") {
    const shown = chosen.length ? chosen.slice(0, COLOURS) : about.intents.slice(0, COLOURS).map((_, i) => i);
    const at = new Map(shown.map((intent, place) => [intent, place]));
    for (let i = 0; i < points.n; i++) category[i] = at.get(points.intent[i]!) ?? shown.length;
    return {
      category,
      colours: [...coloursOf(shown), chosen.length ? "rule" : "cx"],
      names: [...shown.map((i) => about.intents[i]!.name), "all other"],
    };
  }
  if (by === "confidence") {
    for (let i = 0; i < points.n; i++)
      category[i] =
        points.intent[i] === 65535
          ? RAMP.length
          : Math.min(RAMP.length - 1, Math.floor((points.confidence[i]! / 256) * RAMP.length));
    const names = RAMP.map((_, r) => `${(r / RAMP.length).toFixed(1)} to ${((r + 1) / RAMP.length).toFixed(1)}`);
    return { category, colours: [...RAMP, "cx"], names: [...names, "no intent"] };
  }
  if (by === "converted") {
    category.set(points.outcome);
    return { category, colours: ["rule", "quiet", "warm"], names: ["not known", "no", "converted"] };
  }
  category.set(points.linked);
  return { category, colours: ["quiet", "accent"], names: ["no account known", "linked to an account"] };
}

/** A colour of their own for up to ten intents: its usual one, or one that no other has. */
function coloursOf(intents: number[]): string[] {
  const usual = intents.filter((i) => i < COLOURS);
  const free = Array.from({ length: COLOURS }, (_, i) => i).filter((i) => !usual.includes(i));
  return intents.map((i) => colourClass(i < COLOURS ? i : (free.shift() ?? COLOURS)));
}

function SessionMap({ about, all, query }: { about: Overview; all: api.Points; query: URLSearchParams }) {
  const [by, setBy] = useState<Colouring>("intent");
  const [chosen, setChosen] = useState<number[]>([]);
  const [area, setArea] = useState<Area | null>(null);
  const [session, setSession] = useState<number | null>(null);
  const filtered = isFiltered(query);
  const [opened] = useState(filtered); // and then by hand alone, so that who changes a filter does not lose it
  const points = useMemo(
    () => (filtered ? api.take(all, matching(about, all, query)) : all),
    [about, all, query, filtered],
  );
  const legend = useMemo(() => legendOf(about, points, by, chosen), [about, points, by, chosen]);
  const inside = useMemo(
    () => (area ? within(points, area) : filtered ? Array.from({ length: points.n }, (_, i) => i) : null),
    [points, area, filtered],
  );
  const change = (changed: URLSearchParams) => {
    setSession(null);
    location.replace(`#/map?${changed}`);
  };
  const options: [Colouring, string][] = [
    ["intent", "intent"],
    ["confidence", "confidence"],
    ...(about.rate ? [["converted", "conversion"] as [Colouring, string]] : []),
    ["linked", "account known"],
  ];
  return (
    <div class="map">
      <h1 class="hidden">Map of sessions</h1>
      <section class="canvas-side">
        <View
          about={about}
          points={points}
          legend={legend}
          area={area}
          setArea={(found) => {
            setArea(found);
            if (found) setSession(null);
          }}
          setSession={setSession}
        />
        <p class="hint muted">
          {plural(points.n, "session")}
          {points.n < about.sessions && ` of ${count(about.sessions)}`}: close together if alike; distances between
          groups mean little. Drag to move, scroll to zoom (or arrow keys, + and −), shift and drag for a rectangle, or
          the lasso below; Enter selects what is in view. <a href={`#/sessions?${query}`}>As a list</a>
        </p>
      </section>
      <aside>
        <div class="filters">
          <Select label="Colour by" value={by} change={(value) => setBy(value as Colouring)} options={options} />
        </div>
        <details open={opened}>
          <summary>Filter</summary>
          <div class="filters">
            <Filters about={about} query={query} change={change} />
          </div>
        </details>
        {by !== "intent" && (
          <ul class="legend">
            {legend.names.map((name, i) => (
              <li key={name}>
                <i class={`dot paint-${legend.colours[i]}`} aria-hidden="true" />
                {name}
              </li>
            ))}
          </ul>
        )}
        {session !== null ? (
          <div>
            <div class="head">
              <h2>Session</h2>
              <button type="button" onClick={() => setSession(null)}>
                Close
              </button>
            </div>
            <Strips about={about} sessions={[session]} />
          </div>
        ) : inside ? (
          <Selected
            about={about}
            all={all}
            points={points}
            inside={inside}
            clear={() => (area ? setArea(null) : change(unfiltered(query)))}
          />
        ) : (
          by === "intent" && <IntentLegend about={about} chosen={chosen} setChosen={setChosen} />
        )}
      </aside>
    </div>
  );
}

function IntentLegend({
  about,
  chosen,
  setChosen,
}: {
  about: Overview;
  chosen: number[];
  setChosen: (value: number[]) => void;
}) {
  const colours = coloursOf(chosen);
  const toggle = (i: number) => setChosen(chosen.includes(i) ? chosen.filter((j) => j !== i) : [...chosen, i]);
  return (
    <>
      <p class="muted">Choose intents to see them alone (ten at most).</p>
      {chosen.length > 0 && (
        <button type="button" onClick={() => setChosen([])}>
          Show all
        </button>
      )}
      <ul class="legend">
        {about.intents.map((row, i) => {
          const place = chosen.indexOf(i);
          const colour = place >= 0 ? colours[place]! : colourClass(i);
          return (
            <li key={row.id}>
              <button
                type="button"
                aria-pressed={place >= 0}
                disabled={place < 0 && chosen.length >= COLOURS}
                onClick={() => toggle(i)}
              >
                <i class={`dot ${colour}`} aria-hidden="true" />
                {row.name} <span class="muted">{percent(row.sessions / Math.max(about.sessions, 1))}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </>
  );
}

/** Who they are: the sessions of an area, or those that passed the filter, beside all sessions shown. */
function Selected({
  about,
  all,
  points,
  inside,
  clear,
}: {
  about: Overview;
  all: api.Points;
  points: api.Points;
  inside: number[];
  clear: () => void;
}) {
  const found = useMemo(() => profile(about, all, points, inside), [about, all, points, inside]);
  const examples = useMemo(() => spread(inside, 8).map((i) => points.session[i]!), [points, inside]);
  return (
    <div class="selected">
      <div class="head">
        <h2 aria-live="polite">{plural(inside.length, "session")}</h2>
        <button type="button" onClick={clear}>
          Clear
        </button>
      </div>
      {inside.length > 0 && (
        <>
          <p class="muted">
            {percent(inside.length / all.n)} of the map · {found.mean.toFixed(1)} events on average (all:{" "}
            {found.meanOfAll.toFixed(1)}) · {time(found.from)} to {time(found.to)}
          </p>
          {about.rate && found.known > 0 && (
            <p>
              Converted: <b>{percent(found.converted / found.known)}</b>{" "}
              <span class="muted">(all: {percent(about.rate[0])})</span>
            </p>
          )}
          <p>
            Linked to an account: <b>{percent(found.linked / inside.length)}</b>{" "}
            <span class="muted">(all: {percent(found.linkedOfAll)})</span>
          </p>
          <table class="plain">
            <tbody>
              {found.intents.slice(0, 8).map(({ intent, n, overall }) => (
                <tr key={intent}>
                  <th scope="row">
                    <Name about={about} intent={intent} />
                  </th>
                  <td>
                    <Bar share={n / inside.length} tick={overall} />
                  </td>
                  <td class="num">{percent(n / inside.length)}</td>
                  <td class="num muted">{overall > 0 ? times(n / inside.length / overall) : ""}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <Downloaded about={about} points={points} rows={inside} />
          <h3>Some of them</h3>
          <Strips about={about} sessions={examples} />
        </>
      )}
    </div>
  );
}

function profile(about: Overview, all: api.Points, points: api.Points, inside: number[]) {
  const k = about.intents.length;
  const here = new Array<number>(k + 1).fill(0);
  const everywhere = new Array<number>(k + 1).fill(0);
  let [known, converted, linked, linkedOfAll, events, eventsOfAll, from, to] = [0, 0, 0, 0, 0, 0, Infinity, 0];
  for (let i = 0; i < all.n; i++) {
    everywhere[Math.min(all.intent[i]!, k)]!++;
    linkedOfAll += all.linked[i]!;
    eventsOfAll += all.events[i]!;
  }
  for (const i of inside) {
    here[Math.min(points.intent[i]!, k)]!++;
    known += points.outcome[i]! > 0 ? 1 : 0;
    converted += points.outcome[i] === 2 ? 1 : 0;
    linked += points.linked[i]!;
    events += points.events[i]!;
    from = Math.min(from, points.start[i]! * 60_000);
    to = Math.max(to, points.start[i]! * 60_000);
  }
  const intents = here
    .map((n, intent) => ({ intent: intent === k ? -1 : intent, n, overall: everywhere[intent]! / all.n }))
    .filter(({ n }) => n > 0)
    .sort((a, b) => b.n - a.n);
  return {
    known,
    converted,
    linked,
    linkedOfAll: linkedOfAll / all.n,
    mean: events / Math.max(inside.length, 1),
    meanOfAll: eventsOfAll / all.n,
    from,
    to,
    intents,
  };
}

/** Some of a list, evenly over it. */
function spread(all: number[], most: number): number[] {
  const step = Math.max(1, all.length / most);
  return Array.from({ length: Math.min(most, all.length) }, (_, i) => all[Math.floor(i * step)]!);
}

function within(points: api.Points, area: Area): number[] {
  const corners = Array.isArray(area)
    ? area
    : [
        { x: area.xMin, y: area.yMin },
        { x: area.xMax, y: area.yMin },
        { x: area.xMax, y: area.yMax },
        { x: area.xMin, y: area.yMax },
      ];
  const xs = corners.map((c) => c.x);
  const ys = corners.map((c) => c.y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found: number[] = [];
  for (let i = 0; i < points.n; i++) {
    const x = points.x[i]!;
    const y = points.y[i]!;
    if (x < x0 || x > x1 || y < y0 || y > y1) continue;
    let isInside = false; // even-odd rule
    for (let a = 0, b = corners.length - 1; a < corners.length; b = a++) {
      const [p, q] = [corners[a]!, corners[b]!];
      if (p.y > y !== q.y > y && x < ((q.x - p.x) * (y - p.y)) / (q.y - p.y) + p.x) isInside = !isInside;
    }
    if (isInside) found.push(i);
  }
  return found;
}

/** Finds the points within a distance. What it takes for that is made when it is asked first. */
function finder(points: api.Points) {
  let tree: KDBush | null = null;
  return (x: number, y: number, far: number): number[] => {
    if (points.n === 0) return [];
    if (!tree) {
      tree = new KDBush(points.n, 64, Float32Array);
      for (let i = 0; i < points.n; i++) tree.add(points.x[i]!, points.y[i]!);
      tree.finish();
    }
    return tree.within(x, y, far);
  };
}

/** The view that shows everything; a scale of 1 is from −1 to 1 over the longer side. */
const home = (width: number, height: number): ViewportState => ({
  x: 0,
  y: 0,
  scale: (0.95 * Math.min(width, height)) / Math.max(width, height),
});

function View({
  about,
  points,
  legend,
  area,
  setArea,
  setSession,
}: {
  about: Overview;
  points: api.Points;
  legend: Legend;
  area: Area | null;
  setArea: (area: Area | null) => void;
  setSession: (i: number | null) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<EmbeddingView | null>(null);
  const viewport = useRef<ViewportState | null>(null);
  const { width, height } = useSize(box);
  const scheme = useScheme();
  const near = useMemo(() => finder(points), [points]);
  const now = useRef({ about, points, near, legend }); // for the view, which keeps its functions
  now.current = { about, points, near, legend };

  const props = () => ({
    data: { x: points.x, y: points.y, category: legend.category },
    categoryColors: legend.colours.map(cssColour),
    width,
    height,
    config: {
      colorScheme: isDark() ? ("dark" as const) : ("light" as const),
      mode: "points" as const,
      autoLabelEnabled: false,
    },
    theme: { brandingLink: null, statusBar: true, fontFamily: cssColour("sans") },
    rangeSelection: area as Rectangle | null, // it takes polygons as well, says its documentation
  });

  useEffect(() => {
    if (!box.current || width === 0 || height === 0) return;
    if (view.current) {
      view.current.update(props());
      return;
    }
    viewport.current = home(width, height);
    view.current = new EmbeddingView(box.current, {
      ...props(),
      viewportState: viewport.current,
      onViewportState: (state) => {
        viewport.current = state;
        view.current?.update({ viewportState: state });
      },
      onRangeSelection: setArea,
      onSelection: (selected) => {
        view.current?.update({ selection: selected });
        setSession(selected?.length ? now.current.points.session[Number(selected[0]!.identifier)]! : null);
      },
      onTooltip: (tooltip) => view.current?.update({ tooltip }),
      customTooltip: { class: Tooltip, props: { now } },
      querySelection: async (x, y, unit) => {
        const { points, near, legend } = now.current;
        const found = near(x, y, unit * 10);
        if (found.length === 0) return null;
        const away = (i: number) => (points.x[i]! - x) ** 2 + (points.y[i]! - y) ** 2;
        const i = found.reduce((best, other) => (away(other) < away(best) ? other : best));
        return { x: points.x[i]!, y: points.y[i]!, category: legend.category[i]!, identifier: i };
      },
    });
  }, [points, legend, area, width, height, scheme]);

  useEffect(() => view.current?.update({ selection: null, tooltip: null }), [points]); // they may be left out now

  useEffect(
    () => () => {
      view.current?.destroy();
      view.current = null;
    },
    [],
  );

  const move = (event: KeyboardEvent) => {
    if (!viewport.current || event.ctrlKey || event.altKey || event.metaKey) return; // those are the browser's
    const { x, y, scale } = viewport.current;
    const step = 0.2 / scale;
    const moves: Record<string, ViewportState> = {
      ArrowLeft: { x: x - step, y, scale },
      ArrowRight: { x: x + step, y, scale },
      ArrowUp: { x, y: y + step, scale },
      ArrowDown: { x, y: y - step, scale },
      "+": { x, y, scale: scale * 1.3 },
      "=": { x, y, scale: scale * 1.3 },
      "-": { x, y, scale: scale / 1.3 },
      "0": home(width, height),
    };
    const to = moves[event.key];
    if (event.key === "Escape") setArea(null);
    if (event.key === "Enter") {
      const longer = Math.max(width, height);
      const [right, up] = [width / longer / scale, height / longer / scale];
      setArea({ xMin: x - right, xMax: x + right, yMin: y - up, yMax: y + up });
    }
    if (!to) return;
    event.preventDefault();
    viewport.current = to;
    view.current?.update({ viewportState: to });
  };

  return (
    <div
      class="canvas"
      ref={box}
      tabIndex={0}
      role="application"
      aria-label="Map of sessions. Arrow keys move, plus and minus zoom, 0 shows everything, Enter tells who is in view, Escape drops that. The page Sessions has them as a list."
      onKeyDown={move}
    />
  );
}

/** What is told about a point under the pointer. */
class Tooltip {
  constructor(
    private readonly node: HTMLDivElement,
    private readonly props: { tooltip: DataPoint; now: { current: { about: Overview; points: api.Points } } },
  ) {
    this.show(props.tooltip);
  }

  update(props: { tooltip?: DataPoint }) {
    if (props.tooltip) this.show(props.tooltip);
  }

  destroy() {
    this.node.replaceChildren();
  }

  private show({ identifier }: DataPoint) {
    const { about, points } = this.props.now.current;
    const i = Number(identifier);
    const name = about.intents[points.intent[i]!]?.name;
    const box = document.createElement("div");
    box.className = "tooltip";
    const head = document.createElement("b");
    head.textContent = name ? `${name} (${(points.confidence[i]! / 255).toFixed(2)})` : "no intent";
    const facts = [plural(points.events[i]!, "event"), time(points.start[i]! * 60_000)];
    if (points.outcome[i] === 2) facts.push("converted");
    const rest = document.createElement("span");
    rest.textContent = facts.join(" · ");
    box.append(head, rest);
    this.node.replaceChildren(box);
  }
}
