import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { askSession, logOut, reachable, session } from "./api";
import { keep, useWatched, useZone, zone } from "./hooks";
import { Configuration } from "./pages/Configuration";
import { Databases } from "./pages/Databases";
import { Decoders } from "./pages/Decoders";
import { Devices } from "./pages/Devices";
import { Login } from "./pages/Login";
import { Overview } from "./pages/Overview";
import { Playground } from "./pages/Playground";
import { Quarantine } from "./pages/Quarantine";
import { Tap } from "./pages/Tap";
import { Tenants } from "./pages/Tenants";
import { link, useRoute } from "./route";
import type { Route } from "./route";
import { setTheme, theme } from "./theme";

const PAGES: [string, string, ComponentType<{ route: Route }>][] = [
  ["overview", "Overview", Overview],
  ["tenants", "Tenants", Tenants],
  ["devices", "Devices", Devices],
  ["decoders", "Decoders", Decoders],
  ["quarantine", "Quarantine", Quarantine],
  ["databases", "Databases", Databases],
  ["tap", "Live tap", Tap],
  ["playground", "Playground", Playground],
  ["configuration", "Configuration", Configuration],
];

/** Milliseconds between two looks at a gateway that does not answer, and at the session of one that does. */
const AGAIN_MS = 2_000;
const SESSION_MS = 30_000;

export function App() {
  const who = useWatched(session);
  const answers = useWatched(reachable);
  useEffect(() => {
    void askSession();
  }, []);
  useEffect(() => {
    const timer = setInterval(() => void askSession(), answers ? SESSION_MS : AGAIN_MS);
    return () => clearInterval(timer);
  }, [answers]);
  if (who === null) {
    return (
      <main class="login">
        <p>{answers ? "Asking the gateway…" : "The gateway does not answer. This page goes on asking."}</p>
      </main>
    );
  }
  return who.may_read ? <Frame /> : <Login />;
}

function Frame() {
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const side = useRef<HTMLElement>(null);
  const [, name, Page] = PAGES.find(([page]) => page === route.page) ?? PAGES[0]!;
  useEffect(() => {
    document.title = `${name} · Tidegate`;
    // On a small screen the pages stand in a row that scrolls.
    const current = side.current?.querySelector<HTMLElement>("[aria-current=page]");
    if (side.current && current) side.current.scrollLeft = current.offsetLeft - side.current.clientWidth / 3;
  }, [name]);
  return (
    <div class="frame">
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the page
      </a>
      <Top />
      <nav class="side" aria-label="Pages" ref={side}>
        <ul>
          {PAGES.map(([page, title]) => (
            <li key={page}>
              <a href={link(page)} aria-current={title === name ? "page" : undefined}>
                {title}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <main class="page" id="main" tabIndex={-1} ref={main}>
        <Page route={route} />
      </main>
    </div>
  );
}

function Top() {
  const who = useWatched(session);
  const shownZone = useZone();
  const shownTheme = useWatched(theme);
  const name = { operator: "operator", reader: "reads only", tenant: `tenant ${who?.tenant}`, nobody: "without a token" }[who?.who ?? "nobody"];
  const otherZone = shownZone === "local" ? "UTC" : "local";
  const otherTheme = shownTheme === "dark" ? "light" : "dark";
  return (
    <header class="top">
      <a class="name" href={link("overview")}>
        Tidegate
      </a>
      <span class="soft">{who?.version}</span>
      <Connection />
      <span class="space" />
      <button
        type="button"
        onClick={() => {
          keep("zone", otherZone);
          zone.set(otherZone);
        }}
      >
        Times: {shownZone}
      </button>
      <button type="button" onClick={() => setTheme(otherTheme)}>
        Colours: {shownTheme}
      </button>
      <span class="soft">{name}</span>
      {who?.session_s !== null && (
        <button type="button" onClick={() => void logOut()}>
          Log out
        </button>
      )}
      {who?.session_s === null && who.who === "nobody" && <LogInHere />}
    </header>
  );
}

/** The login of somebody who sees the page without a token. */
function LogInHere() {
  const [open, setOpen] = useState(false);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>
        Log in
      </button>
      {open && (
        <dialog ref={dialog} aria-label="Log in" onClose={() => setOpen(false)}>
          <Login isDialog />
        </dialog>
      )}
    </>
  );
}

/** The state of the connection to the gateway; changes are told to screen readers. */
function Connection() {
  const answers = useWatched(reachable);
  const [wasAway, setWasAway] = useState(false);
  useEffect(() => {
    if (!answers) setWasAway(true);
    if (answers && wasAway) {
      const timer = setTimeout(() => setWasAway(false), 8_000);
      return () => clearTimeout(timer);
    }
    return undefined;
  }, [answers, wasAway]);
  return (
    <span role="status">
      {!answers && <strong class="bad">The gateway does not answer; trying again</strong>}
      {answers && wasAway && <span>Connected again</span>}
    </span>
  );
}
