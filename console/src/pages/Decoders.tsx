import { useState } from "preact/hooks";
import { call, path, query } from "../api";
import { count, moment, visible } from "../format";
import { usePoll, useSession, useZone } from "../hooks";
import { Ask } from "../parts/Ask";
import { Fault } from "../parts/Fault";
import { PutOutcome, usePutting } from "../parts/PutOutcome";
import { LongTable, Table } from "../parts/Table";
import { NOTHING, extension } from "../put";
import { link } from "../route";
import type { Route } from "../route";
import type { Guest } from "../types";

export function Decoders({ route }: { route: Route }) {
  const [tenant, type] = route.parts;
  return tenant !== undefined && type !== undefined ? <One key={tenant + "/" + type} tenant={tenant} type={type} /> : <All />;
}

const sum = (of: Record<string, number>) => Object.values(of).reduce((all, n) => all + n, 0);

/** The counts that are not 0, by kind. */
function counts(of: Record<string, number>): string {
  const some = Object.entries(of).filter(([, n]) => n > 0);
  return some.map(([kind, n]) => `${count(n)} ${kind}`).join(", ") || "none";
}

const cpu = (guest: Guest) => (guest.messages > 0 ? `${((guest.cpu_seconds / guest.messages) * 1e6).toFixed(1)} µs` : "–");

function stateWords(guest: Guest) {
  if (guest.probation) return `serves, on probation: ${guest.probation.failures} failures in ${guest.probation.messages} messages`;
  if (guest.file_state === "set_aside") return <strong class="warn">rolled back</strong>;
  if (guest.state === "refused") return <strong class="bad">{guest.guest ? "new version refused" : "refused"}</strong>;
  return guest.state === "serving" ? "serves" : guest.state;
}

function All() {
  const me = useSession();
  const list = usePoll<{ guests: Guest[] }>(path("guests"), 4_000);
  return (
    <>
      <h1>Decoders</h1>
      <Fault of={list.fault} />
      <LongTable
        label="Decoders"
        empty="No decoder is in the guests folder."
        rows={list.data?.guests ?? []}
        rowKey={(guest) => `${guest.tenant}/${guest.type}`}
        columns={[
          {
            name: "Place",
            cell: (guest) => (
              <a href={link("decoders", guest.tenant, guest.type)}>
                {visible(guest.tenant)}/{visible(guest.type)}
              </a>
            ),
          },
          { name: "Version", cell: (guest) => visible(guest.guest ?? "none") },
          { name: "State", cell: stateWords },
          { name: "Messages", number: true, cell: (guest) => count(guest.messages) },
          { name: "CPU a message", number: true, cell: cpu },
          { name: "Failures", number: true, cell: (guest) => count(sum(guest.failures)) },
          { name: "Left out", number: true, cell: (guest) => count(sum(guest.ignored)) },
          { name: "Lane", cell: (guest) => guest.lane },
        ]}
      />
      {me.may_change && (
        <>
          <h2>Put a decoder</h2>
          <PutForm tenant={me.tenant ?? ""} type="" fixed={me.who === "tenant" ? "tenant" : "none"} guests={list.data?.guests ?? []} onPut={list.refresh} />
        </>
      )}
    </>
  );
}

/** Puts a decoder, by choice of a file or by drag and drop, and shows the verdict. */
function PutForm({ tenant: startTenant, type: startType, fixed, guests, onPut }: { tenant: string; type: string; fixed: "none" | "tenant" | "both"; guests: Guest[]; onPut: () => void }) {
  const [tenant, setTenant] = useState(startTenant);
  const [type, setType] = useState(startType);
  const [content, setContent] = useState<File | null>(null);
  const [cases, setCases] = useState<File | null>(null);
  const [same, setSame] = useState(false);
  const [over, setOver] = useState(false);
  // The decoders as they were when the file was chosen: what is put takes the place of those and of no others.
  const [before, setBefore] = useState<Guest[]>(guests);
  const putting = usePutting();
  const take = (files: FileList | null) => {
    for (const file of Array.from(files ?? [])) {
      if (/\.jsonl?$/.test(file.name)) setCases(file);
      else {
        setContent(file);
        setBefore(guests);
      }
    }
    putting.clear();
  };
  const start = async (event: Event) => {
    event.preventDefault();
    if (!content) return;
    const beganWith = before.find((guest) => guest.tenant === tenant && guest.type === type)?.version ?? NOTHING;
    if (await putting.start({ tenant, type, file: extension(content.name), content, cases, expectSame: same, beganWith })) took();
  };
  const took = () => {
    // The same file once more would be put over itself.
    setContent(null);
    onPut();
  };
  return (
    <form
      class={over ? "drop over" : "drop"}
      aria-label="Put a decoder"
      onSubmit={start}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer?.files ?? null);
      }}
    >
      <p>
        Drop a component (.wasm), a script (.js) or a route file (.toml) here, with its cases (.jsonl) if there are some, or choose them. It serves once it has passed its checks.
      </p>
      <div class="row">
        {fixed === "none" && (
          <label>
            Tenant, or _default
            <input required value={tenant} onInput={(event) => setTenant(event.currentTarget.value)} />
          </label>
        )}
        {fixed !== "both" && (
          <label>
            Message type, or _any
            <input required value={type} onInput={(event) => setType(event.currentTarget.value)} />
          </label>
        )}
        <label>
          Decoder
          <input type="file" onChange={(event) => take(event.currentTarget.files)} />
        </label>
        <label>
          Cases
          <input type="file" accept=".jsonl,.json" onChange={(event) => take(event.currentTarget.files)} />
        </label>
        <label class="inline">
          <input type="checkbox" checked={same} onInput={(event) => setSame(event.currentTarget.checked)} />
          Refuse it if it decodes a remembered message differently
        </label>
        <button type="submit" class="main" disabled={putting.busy || !content || !tenant || !type}>
          Put
        </button>
      </div>
      <p role="status">{content && `${visible(content.name)}${cases ? ` with the cases ${visible(cases.name)}` : ""}`}</p>
      <PutOutcome of={putting} onPut={took} />
    </form>
  );
}

/** The query of the messages that a place decodes. */
function messagesOf(tenant: string, type: string): string {
  return query("", { tenant: tenant === "_default" ? undefined : tenant, type: type === "_any" ? undefined : type });
}

interface Version {
  digest: string;
  guest?: string;
  bytes: number;
  who: string;
  when: string;
  outcome: string;
  reason?: string;
}

function One({ tenant, type }: { tenant: string; type: string }) {
  const me = useSession();
  const zone = useZone();
  const list = usePoll<{ guests: Guest[] }>(path("guests", tenant), 4_000);
  const history = usePoll<{ versions: Version[] }>(path("guests", tenant, type, "history"), 10_000);
  const log = usePoll<{ lines: unknown[]; dropped: number }>(me.sees_payloads ? path("guests", tenant, type, "log") : null, 4_000);
  const [said, setSaid] = useState("");
  const guest = list.data?.guests.find((one) => one.type === type);
  const refresh = () => {
    list.refresh();
    history.refresh();
  };
  return (
    <>
      <h1>
        Decoder {visible(tenant)}/{visible(type)}
      </h1>
      <p>
        <a href={link("decoders")}>All decoders</a> · <a href={link("tap") + messagesOf(tenant, type)}>Its messages as they come</a> ·{" "}
        <a href={link("quarantine") + messagesOf(tenant, type)}>Its refused messages</a>
      </p>
      <Fault of={list.fault} />
      <p role="status">{said}</p>
      {guest && (
        <dl class="facts">
          <dt>State</dt>
          <dd>{stateWords(guest)}</dd>
          {guest.error && (
            <>
              <dt>Why</dt>
              <dd class="bad">{visible(guest.error)}</dd>
            </>
          )}
          <dt>Version</dt>
          <dd>{visible(guest.guest ?? "none")}</dd>
          <dt>Interface</dt>
          <dd>{guest.interface ?? "–"}</dd>
          <dt>Messages</dt>
          <dd>
            {guest.messages === 0 ? "none yet" : `${count(guest.messages)}, ${cpu(guest)} of CPU time each`}, {guest.lane} lane, class {guest.class}
          </dd>
          <dt>Failures</dt>
          <dd>{counts(guest.failures)}</dd>
          <dt>Left out</dt>
          <dd>{counts(guest.ignored)}</dd>
        </dl>
      )}
      {me.may_change && (
        <>
          <div class="row">
            <Ask
              button="Roll back"
              question={`Have the version before this one serve ${tenant}/${type} again?`}
              confirm="Roll back"
              run={async () => {
                const back = await call<{ guest: string }>("POST", path("guests", tenant, type, "rollback"));
                setSaid(`${back.guest} serves again.`);
                refresh();
              }}
            />
            <Ask
              button="Take out"
              question={`Take the decoder out of ${tenant}/${type}? Its messages are refused, and kept in quarantine, unless a common decoder takes them. Its history stays.`}
              confirm="Take out"
              run={async () => {
                await call("DELETE", path("guests", tenant, type));
                setSaid("It is taken out.");
                refresh();
              }}
            />
          </div>
          <h2>Put another version</h2>
          <PutForm tenant={tenant} type={type} fixed="both" guests={list.data?.guests ?? []} onPut={refresh} />
        </>
      )}
      <h2>History</h2>
      <Fault of={history.fault} />
      <Table
        label="History"
        rows={history.data?.versions ?? []}
        rowKey={(version) => version.when + version.digest}
        columns={[
          { name: "Time", cell: (version) => moment(version.when, zone) },
          { name: "Version", cell: (version) => visible(version.guest ?? version.digest.slice(0, 12)) },
          { name: "Outcome", cell: (version) => version.outcome.replaceAll("_", " ") },
          { name: "By", cell: (version) => visible(version.who) },
          { name: "Reason", wide: true, cell: (version) => visible(version.reason ?? "") },
        ]}
      />
      {me.sees_payloads && (
        <>
          <h2>Log</h2>
          <Fault of={log.fault} />
          <pre class="box" tabIndex={0} role="region" aria-label="Log">
            {log.data && log.data.lines.length > 0 ? log.data.lines.map((line) => visible(typeof line === "string" ? line : Object.values(line as object).join("  "))).join("\n") : "It has logged nothing."}
          </pre>
          {log.data && log.data.dropped > 0 && <p class="soft">{count(log.data.dropped)} lines were dropped.</p>}
          {guest?.keeps_state && <State tenant={tenant} type={type} />}
        </>
      )}
    </>
  );
}

interface Partition {
  partition: string;
  values: { key: string; bytes: number; text?: string; u64?: number; base64: string }[];
}

function State({ tenant, type }: { tenant: string; type: string }) {
  const state = usePoll<{ partitions: Partition[]; more: number; bytes: number }>(path("guests", tenant, type, "state"), 0);
  const rows = (state.data?.partitions ?? []).flatMap((one) => one.values.map((value) => ({ partition: one.partition, ...value })));
  return (
    <>
      <h2>State</h2>
      <Fault of={state.fault} />
      {state.data && (
        <p>
          {count(state.data.bytes)} bytes. <button onClick={state.refresh}>Read again</button>
        </p>
      )}
      <Table
        label="State"
        rows={rows}
        rowKey={(row) => row.partition + "/" + row.key}
        columns={[
          { name: "Partition", cell: (row) => visible(row.partition) },
          { name: "Key", cell: (row) => visible(row.key) },
          { name: "Value", wide: true, cell: (row) => <code>{visible(row.text ?? (row.u64 === undefined ? row.base64 : `${row.base64} (${row.u64} as a number)`))}</code> },
        ]}
      />
      {state.data && state.data.more > 0 && <p class="soft">{count(state.data.more)} more partitions</p>}
    </>
  );
}
