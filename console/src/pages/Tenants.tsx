import { path, query } from "../api";
import { bytes, count, visible } from "../format";
import { usePoll } from "../hooks";
import { Fault } from "../parts/Fault";
import { LongTable, Table } from "../parts/Table";
import { link } from "../route";
import type { Route } from "../route";
import type { Books, BudgetUse, HistoryColumns, TenantDetail, TenantList } from "../types";
import { Charts } from "./Overview";

export function Tenants({ route }: { route: Route }) {
  const name = route.parts[0];
  return name === undefined ? <All /> : <One key={name} name={name} />;
}

interface Row {
  name: string;
  books?: Books;
  memory?: BudgetUse;
  disk?: BudgetUse;
}

const part = (budget?: BudgetUse) => (budget ? `${bytes(budget.used)} (${Math.round((100 * budget.used) / Math.max(1, budget.max))} %)` : "–");

const used = (budget?: BudgetUse) => (budget ? `${bytes(budget.used)} of ${bytes(budget.max)}` : "–");

function All() {
  const books = usePoll<{ tenants: Record<string, Books> }>(path("books"), 5_000);
  const budgets = usePoll<TenantList>(path("tenants"), 5_000);
  const names = new Set([...Object.keys(books.data?.tenants ?? {}), ...Object.keys(budgets.data?.tenants ?? {})]);
  const rows: Row[] = [...names].map((name) => ({ name, books: books.data?.tenants[name], ...budgets.data?.tenants[name] }));
  rows.sort((a, b) => (b.books?.messages.received ?? 0) - (a.books?.messages.received ?? 0) || a.name.localeCompare(b.name));
  return (
    <>
      <h1>Tenants</h1>
      <Fault of={books.fault ?? budgets.fault} />
      <LongTable
        label="Tenants"
        rows={rows}
        rowKey={(row) => row.name}
        empty="No message has come yet."
        columns={[
          { name: "Tenant", cell: (row) => <a href={link("tenants", row.name)}>{visible(row.name)}</a> },
          { name: "Received", number: true, cell: (row) => count(row.books?.messages.received) },
          { name: "Refused", number: true, cell: (row) => count(row.books?.messages.quarantined) },
          { name: "Lines written", number: true, cell: (row) => count(row.books?.lines.written) },
          { name: "Lines that wait", number: true, cell: (row) => count(row.books?.lines.pending) },
          { name: "In quarantine", number: true, cell: (row) => count(row.books?.quarantine.entries) },
          { name: "Memory", number: true, cell: (row) => part(row.memory) },
          { name: "Disk", number: true, cell: (row) => part(row.disk) },
        ]}
      />
    </>
  );
}

function One({ name }: { name: string }) {
  const detail = usePoll<TenantDetail>(path("tenants", name), 5_000);
  const history = usePoll<HistoryColumns>(query(path("history"), { tenant: name }), 15_000);
  const tenant = detail.data;
  return (
    <>
      <h1>Tenant {visible(name)}</h1>
      <p>
        <a href={`${link("devices")}?tenant=${encodeURIComponent(name)}`}>Devices</a> · <a href={`${link("quarantine")}?tenant=${encodeURIComponent(name)}`}>Quarantine</a>{" "}
        · <a href={`${link("tap")}?tenant=${encodeURIComponent(name)}`}>Live tap</a>
      </p>
      <Fault of={detail.fault} />
      {history.data && history.data.at_s.length > 0 && <Charts of={history.data} />}
      {tenant && <Kinds title="Memory" budget={tenant.memory} />}
      {tenant && <Kinds title="Disk" budget={tenant.disk} />}
      {tenant?.books && <BookTable books={tenant.books} />}
    </>
  );
}

function BookTable({ books }: { books: Books }) {
  const rows = Object.entries(books).flatMap(([section, counts]) => Object.entries(counts as Record<string, number>).map(([name, n]) => ({ section, name, n })));
  return (
    <>
      <h2>Books since the start</h2>
      <Table
        label="Books"
        rows={rows}
        rowKey={(row) => row.section + row.name}
        columns={[
          { name: "Of", cell: (row) => row.section },
          { name: "Count", cell: (row) => row.name.replaceAll("_", " ") },
          { name: "Number", number: true, cell: (row) => count(row.n) },
        ]}
      />
    </>
  );
}

function Kinds({ title, budget }: { title: string; budget: BudgetUse }) {
  const kinds = Object.entries(budget.kinds ?? {}).filter(([, kind]) => kind.used > 0);
  return (
    <>
      <h2>
        {title}: {used(budget)}
      </h2>
      <Table
        label={`${title} by kind`}
        rows={kinds}
        rowKey={([kind]) => kind}
        columns={[
          { name: "Kind", cell: ([kind]) => kind },
          { name: "Used", number: true, cell: ([, kind]) => bytes(kind.used) },
          { name: "At most", number: true, cell: ([, kind]) => bytes(kind.max) },
        ]}
      />
    </>
  );
}
