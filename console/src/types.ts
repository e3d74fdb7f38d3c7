// Answers of the API, as the OpenAPI document describes them.

export type Severity = "error" | "warning" | "note";

export interface Problem {
  severity: Severity;
  part: string;
  what: string;
  todo: string;
}

export interface Usage {
  used: number;
  max: number;
}

export interface Overview {
  tenant: string | null;
  version: string;
  uptime_s: number;
  now_ms: number;
  ready: boolean;
  problems: Problem[];
  parts: { name: string; ready: boolean; degraded: boolean; why: string | null }[];
  totals: Record<string, number>;
  balanced: boolean;
  refusals: Record<string, number>;
  tenants: number;
  devices: number | null;
  databases: Record<string, number>;
  decoders: Record<string, number>;
  memory: Usage;
  disk: Usage;
  spool: Usage | null;
  viewers: number;
}

export interface HistoryColumns {
  tenant: string | null;
  step_s: number;
  at_s: number[];
  messages_per_s: number[];
  lines_per_s: number[];
  refused_per_s: number[];
  written_per_s: number[];
  ack_p50_ms: (number | null)[];
  ack_p99_ms: (number | null)[];
  backlog_lines: number[];
  backlog_age_s: number[];
}

export interface Books {
  messages: Record<string, number>;
  lines: Record<string, number>;
  quarantine: Record<string, number>;
}

export interface BudgetUse extends Usage {
  kinds?: Record<string, Usage>;
}

export interface TenantList {
  tenants: Record<string, { memory: BudgetUse; disk: BudgetUse }>;
}

export interface TenantDetail {
  tenant: string;
  memory: BudgetUse;
  disk: BudgetUse;
  books: Books | null;
}

export interface Device {
  tenant: string;
  device: string;
  site: string;
  status: string;
  active: boolean;
  last_seen_ms: number | null;
  messages: number;
  messages_last_minute: number;
}

export interface DeviceList {
  devices: Device[];
  more: number;
}

export interface Guest {
  tenant: string;
  type: string;
  state: string;
  file_state: string;
  file: string;
  guest?: string;
  digest?: string;
  /** The version that serves, with its texts. */
  version?: string;
  built_in?: string;
  interface?: string;
  keeps_state: boolean;
  error?: string;
  probation?: { messages: number; failures: number };
  lane: string;
  class: string;
  messages: number;
  cpu_seconds: number;
  failures: Record<string, number>;
  ignored: Record<string, number>;
}

export interface Entry {
  id: string;
  time: string;
  received_at: string;
  reason: string;
  detail: string;
  topic: string;
  tenant?: string;
  device?: string;
  type?: string;
  site?: string;
  guest?: string;
  payload?: string;
  payload_base64?: string;
  payload_bytes?: number;
  truncated?: boolean;
  database?: string;
  line?: string;
  answer?: string;
}

export interface QuarantineSummary {
  reasons: Record<string, number>;
  tenants: Record<string, number>;
  latest: Entry[];
}

export interface Entries {
  entries: Entry[];
  more: number;
}

export interface Database {
  database: string;
  tenant?: string;
  output_of?: string;
  lines: number;
  bytes: number;
  oldest_age_ms: number;
  state?: string;
  trouble_s?: number;
  last_answer?: string;
  failures?: number;
  next_try_ms?: number;
}

export interface TapMessage {
  id: number;
  received_at: string;
  topic: string;
  tenant: string;
  device: string;
  type: string;
  via: string;
  outcome: string;
  reason: string | null;
  detail: string | null;
  guest: string | null;
  database: string | null;
  line_count: number;
  lines: string[] | null;
  payload_bytes: number;
}

export interface TapPayload extends TapMessage {
  payload: string | null;
  payload_base64: string | null;
  truncated: boolean;
  site: string | null;
}

export interface TrialResult {
  steps: { step: string; ok: boolean; text: string }[];
  outcome: string;
  reason: string | null;
  detail: string | null;
  tenant: string | null;
  device: string | null;
  database: string | null;
  guest: string | null;
  lines: string[];
  ignored: string[];
  cpu_us: number;
  received_at: string;
  values: MappedValue[] | null;
  values_left_out: number;
  decoder_payload_base64: string | null;
  put: Put | null;
  may_not_serve: string | null;
}

export interface MappedValue {
  record: number | null;
  role: string;
  name: string;
  place: string | null;
  from: number | null;
  to: number | null;
  bytes: string | null;
  raw: string;
  value: string | null;
}

export interface PlaygroundPlace {
  tenant: string;
  type: string;
  file: string | null;
  guest: string | null;
  built_in: string | null;
  version: string | null;
}

export interface PlaygroundTarget {
  tenant: string;
  type: string;
  device: string;
  site: string | null;
  serves: PlaygroundPlace | null;
  places: PlaygroundPlace[];
}

export interface DecoderTexts {
  tenant: string;
  type: string;
  file: string;
  built_in: string | null;
  version: string | null;
  texts: Record<string, string>;
}

export interface Put {
  guest: string;
  digest: string;
  state: string;
  comparison?: Record<string, unknown>;
}

export interface ConfigReport {
  values: { key: string; value: unknown; source: string }[];
  needs_restart: string[];
  notes: string[];
}
