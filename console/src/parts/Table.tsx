import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export interface Column<T> {
  name: string;
  /** Right-aligned. */
  number?: boolean;
  /** Of several lines. */
  wide?: boolean;
  cell: (row: T) => ComponentChildren;
}

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  rowKey: (row: T) => string;
  isSelected?: (row: T) => boolean;
  empty?: string;
}

function Cell<T>({ column, row, isFirst }: { column: Column<T>; row: T; isFirst: boolean }) {
  const name = [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
  return isFirst ? (
    <th scope="row" class={name}>
      {column.cell(row)}
    </th>
  ) : (
    <td class={name}>{column.cell(row)}</td>
  );
}

/** The cells of a row; the first one names it. */
function Cells<T>({ columns, row }: { columns: Column<T>[]; row: T }) {
  return (
    <>
      {columns.map((column, index) => (
        <Cell key={column.name} column={column} row={row} isFirst={index === 0} />
      ))}
    </>
  );
}

function EmptyRow({ columns, text }: { columns: number; text: string | undefined }) {
  return (
    <tr>
      <td colSpan={columns}>{text ?? "none"}</td>
    </tr>
  );
}

function Head<T>({ columns }: { columns: Column<T>[] }) {
  return (
    <thead>
      <tr>
        {columns.map((column) => (
          <th scope="col" key={column.name} class={column.number ? "number" : ""}>
            {column.name}
          </th>
        ))}
      </tr>
    </thead>
  );
}

/** A table of few rows. */
export function Table<T>({ label, columns, rows, rowKey, isSelected, empty }: Props<T>) {
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      <table>
        <Head columns={columns} />
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)} aria-selected={isSelected ? isSelected(row) : undefined}>
              <Cells columns={columns} row={row} />
            </tr>
          ))}
          {rows.length === 0 && <EmptyRow columns={columns.length} text={empty} />}
        </tbody>
      </table>
    </div>
  );
}

const ROW_PX = 30;

/** Rows above and below those that are seen. */
const BESIDE = 12;

/** A table of any number of rows: only those that are seen are in the page. */
export function LongTable<T>({ label, columns, rows, rowKey, isSelected, empty }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 600 });
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let asked = 0;
    const measure = () => {
      cancelAnimationFrame(asked);
      asked = requestAnimationFrame(() => setSeen({ top: element.scrollTop, height: element.clientHeight }));
    };
    measure();
    element.addEventListener("scroll", measure, { passive: true });
    const size = new ResizeObserver(measure);
    size.observe(element);
    return () => {
      cancelAnimationFrame(asked);
      element.removeEventListener("scroll", measure);
      size.disconnect();
    };
  }, []);
  const first = Math.max(0, Math.min(rows.length, Math.floor(seen.top / ROW_PX)) - BESIDE);
  const last = Math.min(rows.length, Math.ceil((seen.top + seen.height) / ROW_PX) + BESIDE);
  const gap = (count: number, name: string) =>
    count > 0 && (
      <tr class="spacer" key={name} aria-hidden="true">
        <td colSpan={columns.length} style={{ height: `${count * ROW_PX}px` }} />
      </tr>
    );
  return (
    <div class="scroll tall" role="region" aria-label={label} tabIndex={0} ref={box}>
      <table class="fixed" aria-rowcount={rows.length + 1}>
        <Head columns={columns} />
        <tbody>
          {gap(first, "above")}
          {rows.slice(first, last).map((row, index) => (
            <tr key={rowKey(row)} aria-rowindex={first + index + 2} aria-selected={isSelected ? isSelected(row) : undefined}>
              <Cells columns={columns} row={row} />
            </tr>
          ))}
          {gap(rows.length - last, "below")}
          {rows.length === 0 && <EmptyRow columns={columns.length} text={empty} />}
        </tbody>
      </table>
    </div>
  );
}
