import { useState } from "preact/hooks";
import * as api from "./api";
import type { Account, Overview } from "./data";
import { link, percent, plural, time } from "./format";
import { asError, type Loaded } from "./hooks";
import { Bar, Name, Wait } from "./parts";

/** What an account's visitors wanted lately, asked of the service. The page's address, which is kept, has no id. */
export function AccountsPage({ about }: { about: Overview }) {
  const [id, setId] = useState("");
  const [found, setFound] = useState<Loaded<Found> | null>(null);
  if (!api.isServed) {
    return (
      <section class="card narrow">
        <h1>No accounts here</h1>
        <p>
          These files hold no account. <code>clickintent serve</code> answers for single ones.
        </p>
      </section>
    );
  }
  const asked = id.trim();
  const isReady = asked !== "" && found?.state !== "loading";
  const ask = async () => {
    setFound({ state: "loading" });
    try {
      setFound({ state: "ready", value: { id: asked, account: await api.account(asked) } });
    } catch (error) {
      setFound({ state: "failed", error: asError(error) });
    }
  };
  return (
    <>
      <h1>Accounts</h1>
      <p class="intro">
        What the visitors tied to an account wanted lately, before and after they logged in, recent sessions weighing
        more: from what was sent to the service, and what <code>clickintent backfill</code> gave it.
      </p>
      <form
        class="filters"
        onSubmit={(event) => {
          event.preventDefault();
          if (isReady) ask();
        }}
      >
        <label>
          Account id
          <input
            value={id}
            autocomplete="off"
            spellcheck={false}
            maxLength={512}
            onInput={(event) => setId(event.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={!isReady}>
          Look it up
        </button>
      </form>
      {found && <Wait of={found}>{(ready) => <Answer about={about} {...ready} />}</Wait>}
    </>
  );
}

interface Found {
  id: string; // that was asked for; what is typed may be another one by now
  account: Account;
}

function Answer({ about, id, account }: { about: Overview } & Found) {
  if (account.last === null) {
    return (
      <p role="status">
        Visitors are tied to <code>{id}</code>, but no session of theirs is kept any more.
      </p>
    );
  }
  return (
    <>
      <p class="muted" role="status">
        <code>{id}</code>: {plural(account.sessions, "session")} kept, the latest until {time(account.last / 1000)} UTC.
      </p>
      {account.intents.map((intent) => {
        const index = about.intents.findIndex((row) => row.id === intent.id);
        return (
          <section key={intent.id} class="card">
            <h2>{index >= 0 ? <Name about={about} intent={index} /> : intent.name}</h2>
            <p class="confidence">
              <Bar share={intent.confidence} colour={intent.sure ? "accent" : "quiet"} />
              <span class="num">{percent(intent.confidence)}</span>
              <span class="muted">{intent.sure ? "sure enough to be used" : "not sure"}</span>
            </p>
            <ul class="evidence">
              {intent.evidence.map((session) => (
                <li key={session.session_id}>
                  Session until {time(session.end / 1000)} UTC, {percent(session.confidence)} sure{" "}
                  <span class="muted">
                    ({link(session.link)}; <code>{session.session_id}</code>)
                  </span>
                  {session.events.length > 0 && (
                    <ul>
                      {session.events.map((event) => (
                        <li key={event.position}>
                          {event.title ?? ""} <code>{event.page}</code>{" "}
                          <span class="muted">without it, {percent(event.share)} of the confidence would be lost</span>
                        </li>
                      ))}
                    </ul>
                  )}
                </li>
              ))}
            </ul>
          </section>
        );
      })}
    </>
  );
}
