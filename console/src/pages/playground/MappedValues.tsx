import { useState } from "preact/hooks";
import { count, visible } from "../../format";
import { Table } from "../../parts/Table";
import type { MappedValue } from "../../types";

/** Bytes of the payload that are shown. */
const SHOWN_MAX = 512;

const A_ROW = 16;

function placeWords({ from, to, place }: MappedValue): string {
  if (from === null || to === null) return place ?? "not in the payload";
  if (to - from <= 1) return `byte ${from}`;
  return `bytes ${from} to ${to - 1}`;
}

/** The values that a mapping looked for, and the bytes of the payload that each was made of. */
export function MappedValues({ values, leftOut, bytes }: { values: MappedValue[]; leftOut: number; bytes: Uint8Array }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const rows = values.map((value, index) => ({ ...value, index }));
  const isInBytes = values.some((value) => value.from !== null);
  return (
    <>
      <h3>Values that the mapping looked for</h3>
      <Table
        label="Values"
        rows={rows}
        rowKey={(row) => String(row.index)}
        isSelected={(row) => row.index === chosen}
        empty="It looked for none."
        columns={[
          {
            name: "Name",
            cell: (row) =>
              row.from === null ? (
                visible(row.name)
              ) : (
                <button type="button" class="plain" aria-pressed={row.index === chosen} onClick={() => setChosen(row.index === chosen ? null : row.index)}>
                  {visible(row.name)}
                </button>
              ),
          },
          { name: "Part", cell: (row) => (row.record === null ? row.role : `${row.role} of record ${row.record}`) },
          { name: "Place", cell: (row) => visible(placeWords(row)) },
          { name: "Bytes", cell: (row) => <code>{row.bytes ?? ""}</code> },
          { name: "Read", wide: true, cell: (row) => <code>{visible(row.raw)}</code> },
          { name: "In the line", wide: true, cell: (row) => (row.value === null ? <span class="soft">{row.from === null && row.place === null ? "not there" : "left out"}</span> : row.role === "fault" ? <strong class="bad">{row.value}</strong> : <code>{visible(row.value)}</code>) },
        ]}
      />
      {leftOut > 0 && <p class="soft">{count(leftOut)} more values are not shown.</p>}
      {isInBytes && <UsedBytes values={values} bytes={bytes} chosen={chosen === null ? undefined : values[chosen]} />}
    </>
  );
}

/** The payload in hex; bytes that a value was made of are underlined, those of the chosen one framed. */
function UsedBytes({ values, bytes, chosen }: { values: MappedValue[]; bytes: Uint8Array; chosen: MappedValue | undefined }) {
  const shown = bytes.subarray(0, SHOWN_MAX);
  const used = new Array<boolean>(shown.length).fill(false);
  for (const { from, to } of values) {
    if (from !== null && to !== null) used.fill(true, from, Math.min(to, shown.length));
  }
  const within = (index: number) => chosen !== undefined && chosen.from !== null && chosen.to !== null && index >= chosen.from && index < chosen.to;
  const starts = Array.from({ length: Math.ceil(shown.length / A_ROW) }, (_, row) => row * A_ROW);
  return (
    <>
      <p class="soft">
        {count(used.filter(Boolean).length)} of {count(shown.length)} bytes are used: they are underlined. Choose a name above to see its bytes.
      </p>
      <pre class="box" tabIndex={0} role="region" aria-label="Bytes that were used">
        {starts.map((start) => (
          <div key={start}>
            <span class="soft">{start.toString(16).padStart(6, "0")} </span>
            {Array.from(shown.subarray(start, start + A_ROW), (byte, at) => (
              <span key={at}>
                {" "}
                <span class={within(start + at) ? "byte used chosen" : used[start + at] ? "byte used" : "byte"}>{byte.toString(16).padStart(2, "0")}</span>
              </span>
            ))}
          </div>
        ))}
        {bytes.length > SHOWN_MAX && <div>… {count(bytes.length - SHOWN_MAX)} more bytes</div>}
      </pre>
    </>
  );
}
