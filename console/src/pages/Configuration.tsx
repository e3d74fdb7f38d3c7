import { useState } from "preact/hooks";
import { path } from "../api";
import { visible } from "../format";
import { usePoll } from "../hooks";
import { Fault } from "../parts/Fault";
import { LongTable } from "../parts/Table";
import type { ConfigReport } from "../types";

export function Configuration() {
  const report = usePoll<ConfigReport>(path("configuration"), 0);
  const [part, setPart] = useState("");
  const [onlySet, setOnlySet] = useState(false);
  const all = report.data?.values ?? [];
  const rows = all.filter((value) => value.key.includes(part) && !(onlySet && value.source === "default"));
  return (
    <>
      <h1>Configuration</h1>
      <p>The values that hold now, and where each comes from. Secrets are hidden.</p>
      <Fault of={report.fault} />
      {report.data && report.data.needs_restart.length > 0 && (
        <ol class="problems">
          <li class="warning">
            <p>
              <strong class="warn">Warning</strong> These keys have another value in the files now: {report.data.needs_restart.join(", ")}
            </p>
            <p class="soft">To do: start the gateway again, and they hold.</p>
          </li>
        </ol>
      )}
      {report.data && report.data.notes.length > 0 && (
        <ul>
          {report.data.notes.map((note) => (
            <li key={note}>{visible(note)}</li>
          ))}
        </ul>
      )}
      <form class="row" role="search" onSubmit={(event) => event.preventDefault()}>
        <label>
          Part of a key
          <input type="search" value={part} onInput={(event) => setPart(event.currentTarget.value)} />
        </label>
        <label class="inline">
          <input type="checkbox" checked={onlySet} onInput={(event) => setOnlySet(event.currentTarget.checked)} />
          Only what is set
        </label>
      </form>
      <LongTable
        label="Configuration"
        rows={rows}
        rowKey={(value) => value.key}
        columns={[
          { name: "Key", cell: (value) => <code>{visible(value.key)}</code> },
          { name: "Value", cell: (value) => <code>{visible(JSON.stringify(value.value))}</code> },
          { name: "Source", cell: (value) => visible(value.source) },
        ]}
      />
    </>
  );
}
