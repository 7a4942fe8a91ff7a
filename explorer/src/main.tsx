import { render } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import { AccountsPage } from "./accounts";
import * as api from "./api";
import type { Overview } from "./data";
import { DriftPage } from "./drift";
import { date, time } from "./format";
import { type Loaded, useLoaded } from "./hooks";
import { IntentPage, IntentsPage } from "./intent";
import { MapPage } from "./map";
import { OverviewPage } from "./overview";
import { Failure, Wait } from "./parts";
import { ReviewPage } from "./review";
import { SessionPage } from "./session";
import { SessionsPage } from "./sessions";
import "./style.css";

const TABS: [path: string, name: string][] = [
  ["", "Overview"],
  ["map", "Map"],
  ["intents", "Intents"],
  ["sessions", "Sessions"],
  ...(api.isServed ? [["accounts", "Accounts"] as [string, string]] : []),
  ["review", "Review"],
  ["drift", "Drift"],
];

/** Where the page is: the parts of the path after #/, and what follows a question mark. */
function useRoute(): { path: string[]; query: URLSearchParams } {
  const read = () => {
    const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    return { path: path.split("/").map(decoded), query: new URLSearchParams(query) };
  };
  const [route, setRoute] = useState(read);
  useEffect(() => {
    let before = read().path.join("/");
    const moved = () => {
      const next = read();
      setRoute(next);
      if (next.path.join("/") === before) return; // another choice on the same page
      before = next.path.join("/");
      scrollTo(0, 0);
      document.getElementById("main")?.focus({ preventScroll: true }); // for the keyboard and for screen readers
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return route;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

function App() {
  const [attempt, setAttempt] = useState(0);
  const about = useLoaded(api.overview, [attempt]);
  const again = useCallback(() => setAttempt((n) => n + 1), []);
  const { path, query } = useRoute();
  const tab = TABS.find(([name]) => name === path[0])?.[1];
  useEffect(() => {
    const title = about.state === "ready" ? about.value.title : "clickintent";
    document.title = tab ? `${tab} · ${title}` : title;
  }, [tab, about.state]);
  return (
    <>
      <a class="skip" href="#main" onClick={toMain}>
        Skip to the content
      </a>
      <header>
        <a class="brand" href="#/">
          <img src="./icon.svg" alt="" width="22" height="22" />
          {about.state === "ready" ? about.value.title : "clickintent"}
        </a>
        <nav aria-label="Pages">
          {TABS.map(([name, label]) => (
            <a href={`#/${name}`} aria-current={label === tab ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
      </header>
      <main id="main" tabIndex={-1}>
        {path[0] === "key" || needsKey(about) ? (
          <KeyForm
            wasWrong={needsKey(about) && api.key.get() !== ""}
            done={() => {
              if (path[0] === "key") history.length > 1 ? history.back() : location.replace("#/");
              again();
            }}
          />
        ) : (
          <Wait of={about}>{(found) => <Route about={found} path={path} query={query} />}</Wait>
        )}
      </main>
      {about.state === "ready" && <Footer about={about.value} />}
    </>
  );
}

function toMain(event: Event) {
  event.preventDefault(); // the hash is the route
  document.getElementById("main")?.focus();
}

function Route({ about, path, query }: { about: Overview; path: string[]; query: URLSearchParams }) {
  const [tab, which] = path;
  switch (tab) {
    case "":
      return <OverviewPage about={about} />;
    case "map":
      return <MapPage about={about} query={query} />;
    case "intents":
      return which ? <IntentPage about={about} id={which} key={which} /> : <IntentsPage about={about} />;
    case "sessions":
      return which ? (
        <SessionPage about={about} which={which} id={path[2]} key={path.join("/")} />
      ) : (
        <SessionsPage about={about} query={query} />
      );
    case "accounts":
      return <AccountsPage about={about} />;
    case "review":
      return <ReviewPage about={about} which={which ?? null} />;
    case "drift":
      return <DriftPage about={about} />;
    default:
      return <Failure error={new Error("There is no such page.")} />;
  }
}

const needsKey = (of: Loaded<Overview>) =>
  of.state === "failed" && of.error instanceof api.LoadError && [401, 403].includes(of.error.status);

function KeyForm({ wasWrong, done }: { wasWrong: boolean; done: () => void }) {
  const [value, setValue] = useState("");
  const [isTold] = useState(wasWrong); // of the key before: nothing is known of the one that is sent from here
  return (
    <form
      class="card narrow"
      onSubmit={(event) => {
        event.preventDefault();
        if (!value.trim()) return;
        api.key.set(value.trim());
        done();
      }}
    >
      <h1>A key, please</h1>
      <p>
        This service asks for an API key with the scope <code>read</code>; for decisions in the review,{" "}
        <code>admin</code>. It is forgotten when this tab is closed.
      </p>
      {isTold && (
        <p class="failure" role="alert">
          The service does not know this key, or it may not read.
        </p>
      )}
      <label>
        API key
        <input
          type="password"
          autocomplete="off"
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Open</button>
    </form>
  );
}

function Footer({ about }: { about: Overview }) {
  const versions = Object.entries(about.versions).map(([name, version]) => `${name} ${version}`);
  return (
    <footer>
      {api.isServed && api.key.get() && (
        <>
          <a href="#/key">Another key</a> ·{" "}
        </>
      )}
      Made {time(about.made_at)} UTC · sessions from {date(about.from)} to {date(about.to)} · {versions.join(" · ")}
    </footer>
  );
}

render(<App />, document.getElementById("app")!);
