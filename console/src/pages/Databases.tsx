import { useState } from "preact/hooks";
import { call, path, query } from "../api";
import { bytes, count, duration, visible } from "../format";
import { usePoll, useSession } from "../hooks";
import { Fault } from "../parts/Fault";
import { Table } from "../parts/Table";
import type { Database } from "../types";

/** True of a database that does not take its lines now. */
const isTroubled = (row: Database) => row.state !== undefined && row.state !== "well";

export function Databases() {
  const me = useSession();
  const spool = usePoll<{ databases: Database[] }>(path("spool"), 3_000);
  const [fault, setFault] = useState<unknown>(null);
  const [said, setSaid] = useState("");
  const retry = async (database?: string) => {
    try {
      const { databases } = await call<{ databases: number }>("POST", query(path("spool", "retry"), { database }));
      setSaid(databases === 1 ? "One database is tried now." : `${databases} databases are tried now.`);
      setFault(null);
    } catch (refused) {
      setFault(refused);
    }
    spool.refresh();
  };
  const rows = [...(spool.data?.databases ?? [])];
  const weight = (row: Database) => (row.state === "paused" ? 0 : row.state === "retrying" ? 1 : 2);
  rows.sort((a, b) => weight(a) - weight(b) || b.lines - a.lines);
  return (
    <>
      <h1>Databases</h1>
      <p>Lines wait in the spool until their database accepts them.</p>
      {me.may_change && (
        <div class="row">
          <button type="button" onClick={() => void retry()}>
            Retry all now
          </button>
        </div>
      )}
      <p role="status">{said}</p>
      <Fault of={fault ?? spool.fault} />
      <Table
        label="Databases"
        rows={rows}
        rowKey={(row) => `${row.database}/${row.tenant ?? ""}/${row.output_of ?? ""}`}
        empty="No line was written yet, and none waits."
        columns={[
          { name: "Database", cell: (row) => visible(row.database) + (row.output_of ? ` (output of ${visible(row.output_of)})` : "") },
          { name: "Tenant", cell: (row) => visible(row.tenant ?? "") },
          {
            name: "State",
            cell: (row) =>
              !isTroubled(row) ? (row.state ?? "–") : <strong class={row.state === "paused" ? "bad" : "warn"}>{`${row.state} for ${duration(row.trouble_s)}`}</strong>,
          },
          {
            name: "Retry",
            cell: (row) =>
              me.may_change &&
              isTroubled(row) && (
                <button type="button" onClick={() => void retry(row.database)}>
                  Retry now<span class="hidden"> {row.database}</span>
                </button>
              ),
          },
          { name: "Lines that wait", number: true, cell: (row) => count(row.lines) },
          { name: "Bytes", number: true, cell: (row) => bytes(row.bytes) },
          { name: "Age of the oldest", number: true, cell: (row) => (row.lines > 0 ? duration(row.oldest_age_ms / 1000) : "–") },
          { name: "Next try", cell: (row) => (row.next_try_ms === undefined || !isTroubled(row) ? "–" : `in ${duration(row.next_try_ms / 1000)}`) },
          { name: "Last answer", wide: true, cell: (row) => visible(row.last_answer ?? "") },
        ]}
      />
    </>
  );
}
