import { useEffect, useState } from "preact/hooks";
import { path, query } from "../api";
import { count, duration, moment, visible } from "../format";
import { usePoll, useSession, useZone } from "../hooks";
import { Fault } from "../parts/Fault";
import { LongTable } from "../parts/Table";
import { link } from "../route";
import type { Route } from "../route";
import type { Device, DeviceList, Entry } from "../types";
import { EntryTable } from "./Quarantine";
import { Messages, useTap } from "./Tap";

export function Devices({ route }: { route: Route }) {
  const [tenant, device] = route.parts;
  return tenant !== undefined && device !== undefined ? <One key={tenant + "/" + device} tenant={tenant} device={device} /> : <All route={route} />;
}

const LISTED_MAX = 10_000;

/** Milliseconds for which somebody may go on typing. */
const TYPING_MS = 250;

const ago = (device: Device, nowMs: number) => (device.last_seen_ms === null ? "not yet" : `${duration((nowMs - device.last_seen_ms) / 1000)} ago`);

function All({ route }: { route: Route }) {
  const me = useSession();
  const [tenant, setTenant] = useState(route.query.get("tenant") ?? "");
  const [search, setSearch] = useState("");
  const [asked, setAsked] = useState({ tenant, search });
  useEffect(() => {
    const timer = setTimeout(() => setAsked({ tenant, search }), TYPING_MS);
    return () => clearTimeout(timer);
  }, [tenant, search]);
  const list = usePoll<DeviceList>(query(path("devices"), { ...asked, limit: LISTED_MAX }), 10_000);
  const nowMs = Date.now();
  return (
    <>
      <h1>Devices</h1>
      <p>Devices that the gateway has looked up since its start, those that were seen last first.</p>
      <form class="row" role="search" onSubmit={(event) => event.preventDefault()}>
        {me.who !== "tenant" && (
          <label>
            Tenant
            <input value={tenant} onInput={(event) => setTenant(event.currentTarget.value)} />
          </label>
        )}
        <label>
          Part of a name or a site
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
      </form>
      <Fault of={list.fault} />
      {list.data && (
        <p class="soft" role="status">
          {count(list.data.devices.length)} devices{list.data.more > 0 ? `, and ${count(list.data.more)} more that match` : ""}
        </p>
      )}
      <LongTable
        label="Devices"
        rows={list.data?.devices ?? []}
        rowKey={(device) => `${device.tenant}/${device.device}`}
        columns={[
          { name: "Device", cell: (device) => <a href={link("devices", device.tenant, device.device)}>{visible(device.device)}</a> },
          { name: "Tenant", cell: (device) => visible(device.tenant) },
          { name: "Site", cell: (device) => visible(device.site) },
          { name: "Status", cell: (device) => (device.active ? device.status : <span class="bad">{visible(device.status)}</span>) },
          { name: "Last seen", cell: (device) => ago(device, nowMs) },
          { name: "Messages a minute", number: true, cell: (device) => count(device.messages_last_minute) },
          { name: "Messages", number: true, cell: (device) => count(device.messages) },
        ]}
      />
    </>
  );
}

function One({ tenant, device }: { tenant: string; device: string }) {
  const zone = useZone();
  const detail = usePoll<{ known: Device | null; refusals: Entry[] }>(path("devices", tenant, device), 5_000);
  const tap = useTap({ tenant, device });
  const known = detail.data?.known;
  return (
    <>
      <h1>
        Device {visible(device)} of {visible(tenant)}
      </h1>
      <Fault of={detail.fault} />
      {detail.data && !known && <p>The gateway has not looked this device up since its start.</p>}
      {known && (
        <dl class="facts">
          <dt>Site</dt>
          <dd>{visible(known.site) || "none"}</dd>
          <dt>Status</dt>
          <dd>
            {visible(known.status)}
            {known.active ? "" : ": its messages are refused"}
          </dd>
          <dt>Last seen</dt>
          <dd>{known.last_seen_ms === null ? "not yet" : `${moment(known.last_seen_ms, zone)}, ${ago(known, Date.now())}`}</dd>
          <dt>Messages</dt>
          <dd>
            {count(known.messages)} since its last look-up, {count(known.messages_last_minute)} in the last whole minute
          </dd>
        </dl>
      )}
      <h2>Messages as they come</h2>
      <Messages tap={tap} />
      <h2>Last refusals</h2>
      <EntryTable entries={detail.data?.refusals ?? []} />
    </>
  );
}
