import { useEffect, useState } from "preact/hooks";
import { call, path, query } from "../api";
import { caseOf, download } from "../case";
import { bytes, count, moment, visible } from "../format";
import { usePoll, useSession, useZone } from "../hooks";
import { Ask } from "../parts/Ask";
import { Fault } from "../parts/Fault";
import { Payload } from "../parts/Payload";
import { LongTable, Table } from "../parts/Table";
import { bytesOf } from "../payload";
import { link } from "../route";
import type { Route } from "../route";
import type { Entries, Entry, QuarantineSummary } from "../types";

const LISTED_MAX = 1_000;

interface Filters {
  tenant: string;
  device: string;
  type: string;
  reason: string;
}

export function Quarantine({ route }: { route: Route }) {
  const id = route.parts[0];
  return id === undefined ? <All key={route.query.toString()} route={route} /> : <One key={id} id={id} />;
}

interface Replay {
  replayed: number;
  lines: number;
  empty: number;
  quarantined_again: number;
  parked: number;
  skipped_count: number;
  skipped: { id: string; why: string }[];
  left: number;
}

function replayWords(report: Replay): string {
  const parts = [`${count(report.replayed)} replayed: ${count(report.lines)} with lines, ${count(report.empty)} without`];
  if (report.quarantined_again > 0) parts.push(`${count(report.quarantined_again)} refused again`);
  if (report.parked > 0) parts.push(`${count(report.parked)} parked`);
  if (report.skipped_count > 0) parts.push(`${count(report.skipped_count)} cannot be replayed, ${report.skipped[0]?.why}`);
  if (report.left > 0) parts.push(`${count(report.left)} more match`);
  return parts.join("; ") + ".";
}

export async function replay(filters: object): Promise<string> {
  return replayWords(await call<Replay>("POST", path("quarantine", "replay"), JSON.stringify(filters)));
}

function All({ route }: { route: Route }) {
  const me = useSession();
  const start = (name: string) => route.query.get(name) ?? "";
  const [filters, setFilters] = useState<Filters>({ tenant: start("tenant"), device: start("device"), type: start("type"), reason: start("reason") });
  const [said, setSaid] = useState("");
  const summary = usePoll<QuarantineSummary>(path("quarantine"), 5_000);
  const list = usePoll<Entries>(query(path("quarantine", "entries"), { ...filters, limit: LISTED_MAX }), 5_000);
  const entries = [...(list.data?.entries ?? [])].reverse();
  const reasons = Object.entries(summary.data?.reasons ?? {}).sort((a, b) => b[1] - a[1]);
  const chosen = Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== ""));
  const isAll = Object.keys(chosen).length === 0;
  const matching = entries.length + (list.data?.more ?? 0);
  const meant = isAll ? "all entries" : `the ${count(matching)} entries that match`;
  const refresh = () => {
    summary.refresh();
    list.refresh();
  };
  const field = (name: keyof Filters, title: string) => (
    <label>
      {title}
      <input value={filters[name]} onInput={(event) => setFilters({ ...filters, [name]: event.currentTarget.value })} />
    </label>
  );
  return (
    <>
      <h1>Quarantine</h1>
      <p>Refused messages. Each was acknowledged and is kept: once the cause is mended, it can be replayed.</p>
      <Fault of={summary.fault ?? list.fault} />
      <div class="row" role="group" aria-label="Reasons">
        <button type="button" aria-pressed={filters.reason === ""} onClick={() => setFilters({ ...filters, reason: "" })}>
          All reasons
        </button>
        {reasons.map(([reason, n]) => (
          <button type="button" key={reason} aria-pressed={filters.reason === reason} onClick={() => setFilters({ ...filters, reason })}>
            {reason} ({count(n)})
          </button>
        ))}
      </div>
      <form class="row" role="search" onSubmit={(event) => event.preventDefault()}>
        {me.who !== "tenant" && field("tenant", "Tenant")}
        {field("device", "Device")}
        {field("type", "Type")}
      </form>
      {me.may_change && (
        <div class="row">
          <Ask
            button={isAll ? "Replay all" : "Replay what matches"}
            question={`Send ${meant} through the gateway again? What is refused again comes back here.`}
            confirm="Replay"
            disabled={matching === 0}
            run={async () => {
              setSaid(await replay(isAll ? { all: true } : chosen));
              refresh();
            }}
          />
          <Ask
            button={isAll ? "Remove all" : "Remove what matches"}
            question={`Remove ${meant} for good? They cannot be brought back.`}
            confirm="Remove"
            disabled={matching === 0}
            run={async () => {
              const wanted = isAll ? { all: "true" } : chosen;
              const { removed } = await call<{ removed: number }>("DELETE", query(path("quarantine", "entries"), wanted));
              setSaid(`${count(removed)} removed.`);
              refresh();
            }}
          />
        </div>
      )}
      <p role="status">{said}</p>
      {list.data && (
        <p class="soft">
          {count(entries.length)} entries, the latest first{list.data.more > 0 ? `; ${count(list.data.more)} older ones match too` : ""}
        </p>
      )}
      <LongTable label="Entries" rows={entries} rowKey={(entry) => entry.id} columns={useColumns()} empty="Nothing is in quarantine." />
    </>
  );
}

function useColumns() {
  const zone = useZone();
  return [
    { name: "Time", cell: (entry: Entry) => <a href={link("quarantine", entry.id)}>{moment(entry.time, zone)}</a> },
    { name: "Reason", cell: (entry: Entry) => entry.reason },
    { name: "Tenant", cell: (entry: Entry) => visible(entry.tenant ?? "") },
    { name: "Device", cell: (entry: Entry) => visible(entry.device ?? "") },
    { name: "Type", cell: (entry: Entry) => visible(entry.type ?? "") },
    { name: "Size", number: true, cell: (entry: Entry) => (entry.line ? "a line" : bytes(entry.payload_bytes)) },
    { name: "Detail", cell: (entry: Entry) => visible(entry.detail.slice(0, 300)) },
  ];
}

/** Few entries, for other pages. */
export function EntryTable({ entries }: { entries: Entry[] }) {
  return <Table label="Refusals" rows={entries} rowKey={(entry) => entry.id} columns={useColumns()} empty="None is in quarantine." />;
}

function One({ id }: { id: string }) {
  const me = useSession();
  const zone = useZone();
  const found = usePoll<Entry>(path("quarantine", "entries", id), 0);
  const [said, setSaid] = useState("");
  const entry = found.data;
  const payload = entry ? bytesOf(entry) : null;
  useEffect(() => setSaid(""), [id]);
  return (
    <>
      <h1>Refused message</h1>
      <p>
        <a href={link("quarantine")}>All of quarantine</a>
      </p>
      {!said && <Fault of={found.fault} />}
      <p role="status">{said}</p>
      {entry && !said && (
        <>
          <dl class="facts">
            <dt>Reason</dt>
            <dd>
              <strong>{entry.reason}</strong>
            </dd>
            <dt>Detail</dt>
            <dd>{visible(entry.detail)}</dd>
            <dt>Topic</dt>
            <dd class="mono">{visible(entry.topic)}</dd>
            <dt>Device</dt>
            <dd>{entry.tenant && entry.device ? <a href={link("devices", entry.tenant, entry.device)}>{visible(`${entry.device} of ${entry.tenant}`)}</a> : "none that the topic names"}</dd>
            <dt>Received</dt>
            <dd>{moment(entry.received_at, zone)}</dd>
            <dt>Refused</dt>
            <dd>{moment(entry.time, zone)}</dd>
            <dt>Decoder</dt>
            <dd>{visible(entry.guest ?? "none")}</dd>
            {entry.database && (
              <>
                <dt>Database</dt>
                <dd>{visible(entry.database)}</dd>
              </>
            )}
            <dt>Size</dt>
            <dd>
              {bytes(entry.payload_bytes)}
              {entry.truncated && "; only its beginning was kept, so it cannot be replayed"}
            </dd>
          </dl>
          {me.may_change && (
            <div class="row">
              <button
                type="button"
                class="main"
                disabled={entry.truncated}
                onClick={() =>
                  void replay({ id }).then(setSaid, (fault: unknown) => setSaid(fault instanceof Error ? fault.message : String(fault)))
                }
              >
                Replay
              </button>
              {payload && (
                <a class="button" href={`${link("playground")}?entry=${encodeURIComponent(id)}`}>
                  Open in the playground
                </a>
              )}
              {payload && (
                <button
                  type="button"
                  onClick={() => download("case.jsonl", JSON.stringify(caseOf(`refused ${id}`, entry.topic, payload, entry.received_at, { refusal: entry.reason }, entry.site)) + "\n")}
                >
                  Save as case
                </button>
              )}
              <Ask
                button="Remove"
                question="Remove this entry for good?"
                confirm="Remove"
                run={async () => {
                  await call("DELETE", query(path("quarantine", "entries"), { id }));
                  setSaid("It is removed.");
                }}
              />
            </div>
          )}
          {entry.line && (
            <>
              <h2>Line that the database refused</h2>
              <pre class="box" tabIndex={0} role="region" aria-label="Line">
                {visible(entry.line)}
              </pre>
            </>
          )}
          {payload && (
            <>
              <h2>Payload</h2>
              <Payload key={id} bytes={payload} />
            </>
          )}
          {!payload && !entry.line && !me.sees_payloads && <p>Payloads need the operator's token, or that of their tenant.</p>}
        </>
      )}
    </>
  );
}
