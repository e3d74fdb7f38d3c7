import { path } from "../api";
import { bytes, count, duration, milliseconds, moment, rate } from "../format";
import { usePoll, useZone } from "../hooks";
import { Chart } from "../parts/Chart";
import { Fault } from "../parts/Fault";
import { Table } from "../parts/Table";
import { link } from "../route";
import type { HistoryColumns, Overview as Report, Problem, Usage } from "../types";
import { visible } from "../format";

export function Overview() {
  const overview = usePoll<Report>(path("overview"), 3_000);
  const history = usePoll<HistoryColumns>(path("history"), 5_000);
  const report = overview.data;
  return (
    <>
      <h1>{report?.tenant ? `Overview of ${visible(report.tenant)}` : "Overview"}</h1>
      <Fault of={overview.fault} />
      {report && <Problems of={report.problems} />}
      {report && <Figures report={report} history={history.data} />}
      {history.data && <Charts of={history.data} />}
      {report && <State report={report} />}
    </>
  );
}

const SEVERITY = { error: "Error", warning: "Warning", note: "Note" };

/** The page on which something is done about a part. */
const PAGE_OF: Record<string, string> = { decoder: "Decoders", output: "Databases", spool: "Databases", quarantine: "Quarantine", budget: "Tenants", books: "Tenants" };

function Problems({ of }: { of: Problem[] }) {
  return (
    <section aria-label="What is wrong">
      {of.length === 0 && <p class="calm">Nothing is wrong.</p>}
      {of.length > 0 && (
        <ol class="problems">
          {of.map((problem) => (
            <li key={problem.part + problem.what} class={problem.severity}>
              <p>
                <strong class={{ error: "bad", warning: "warn", note: "soft" }[problem.severity]}>{SEVERITY[problem.severity]}</strong> {problem.part}:{" "}
                {visible(problem.what)}
              </p>
              <p class="soft">
                To do: {visible(problem.todo)}
                {PAGE_OF[problem.part] && (
                  <>
                    .{" "}
                    <a href={link(PAGE_OF[problem.part]!.toLowerCase())}>Open {PAGE_OF[problem.part]}</a>
                  </>
                )}
              </p>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function Figures({ report, history }: { report: Report; history: HistoryColumns | null }) {
  const last = <T,>(column: T[] | undefined): T | undefined => column?.at(-1);
  const figures: [string, string][] = [
    ["Messages a second", rate(last(history?.messages_per_s))],
    ["Lines a second", rate(last(history?.lines_per_s))],
    ["Refused a second", rate(last(history?.refused_per_s))],
  ];
  if (report.tenant === null) {
    figures.push(["PUBACK, median", milliseconds(last(history?.ack_p50_ms))], ["PUBACK, 99 of 100", milliseconds(last(history?.ack_p99_ms))]);
  }
  figures.push(["Lines that wait", count(report.totals.lines_pending)]);
  if (report.tenant === null) figures.push(["Age of the oldest", duration(last(history?.backlog_age_s))]);
  figures.push(["In flight", count(report.totals.in_flight)], ["Parked", count(report.totals.parked)]);
  if (report.devices !== null) figures.push(["Tenants", count(report.tenants)], ["Devices known", count(report.devices)]);
  return (
    <dl class="figures">
      {figures.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Charts({ of }: { of: HistoryColumns }) {
  return (
    <section aria-label="The last hour">
      <h2>The last hour</h2>
      <div class="charts">
        <Chart
          title="Messages and lines a second"
          at_s={of.at_s}
          shown={rate}
          lines={[
            { name: "messages", values: of.messages_per_s },
            { name: "lines", values: of.lines_per_s, dashed: true },
          ]}
        />
        <Chart title="Refused a second" at_s={of.at_s} shown={rate} lines={[{ name: "refused", values: of.refused_per_s }]} />
        {of.tenant === null && (
          <>
            <Chart
              title="Time to PUBACK"
              at_s={of.at_s}
              shown={milliseconds}
              lines={[
                { name: "99 of 100", values: of.ack_p99_ms },
                { name: "median", values: of.ack_p50_ms, dashed: true },
              ]}
            />
            <Chart title="Lines that wait for a database" at_s={of.at_s} shown={count} lines={[{ name: "lines", values: of.backlog_lines }]} />
          </>
        )}
      </div>
    </section>
  );
}

function Use({ name, of }: { name: string; of: Usage }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>
        {bytes(of.used)} of {bytes(of.max)} <meter min={0} max={Math.max(1, of.max)} value={of.used} aria-label={`${name} in use`} />
      </dd>
    </>
  );
}

function State({ report }: { report: Report }) {
  const zone = useZone();
  const refusals = Object.entries(report.refusals).filter(([, n]) => n > 0);
  refusals.sort((a, b) => b[1] - a[1]);
  const words = (of: Record<string, number>) =>
    Object.entries(of)
      .filter(([, n]) => n > 0)
      .map(([state, n]) => `${n} ${state}`)
      .join(", ") || "none";
  return (
    <>
      <h2>State</h2>
      {report.tenant === null && (
        <Table
          label="Parts"
          rows={report.parts}
          rowKey={(part) => part.name}
          columns={[
            { name: "Part", cell: (part) => part.name },
            { name: "State", cell: (part) => (part.ready ? (part.degraded || part.why ? "ready, with a remark" : "ready") : <strong class="bad">not ready</strong>) },
            { name: "Why", wide: true, cell: (part) => visible(part.why ?? "") },
          ]}
        />
      )}
      <dl class="facts">
        <dt>Databases</dt>
        <dd>
          <a href={link("databases")}>{words(report.databases)}</a>
        </dd>
        <dt>Decoders</dt>
        <dd>
          <a href={link("decoders")}>{words(report.decoders)}</a>
        </dd>
        <Use name="Memory" of={report.memory} />
        <Use name="Disk" of={report.disk} />
        {report.spool && <Use name="Spool" of={report.spool} />}
        <dt>Books</dt>
        <dd>{report.balanced ? "they balance" : <strong class="bad">they do not balance</strong>}</dd>
        <dt>Runs for</dt>
        <dd>
          {duration(report.uptime_s)}; its clock says {moment(report.now_ms, zone)}
        </dd>
      </dl>
      <h2>{report.tenant === null ? "Refused since the start, by reason" : "In quarantine, by reason"}</h2>
      <Table
        label="Refusals by reason"
        rows={refusals}
        rowKey={([reason]) => reason}
        columns={[
          { name: "Reason", cell: ([reason]) => <a href={`${link("quarantine")}?reason=${encodeURIComponent(reason)}`}>{reason}</a> },
          { name: "Messages", number: true, cell: ([, n]) => count(n) },
        ]}
      />
    </>
  );
}
