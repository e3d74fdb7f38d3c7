// Calls of the gateway's API, and the state of the connection to it.

export class ApiFault extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export type Who = "operator" | "reader" | "tenant" | "nobody";

export interface Session {
  who: Who;
  tenant: string | null;
  may_read: boolean;
  sees_payloads: boolean;
  may_change: boolean;
  session_s: number | null;
  version: string;
}

type Listener = () => void;

/** A value that parts of the page watch. */
export class Watched<T> {
  private listeners = new Set<Listener>();
  constructor(private current: T) {}
  get value(): T {
    return this.current;
  }
  set(next: T): void {
    if (next === this.current) return;
    this.current = next;
    for (const listener of [...this.listeners]) listener();
  }
  watch(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** True while the gateway answers. */
export const reachable = new Watched(true);

/** The caller as the gateway knows it; null until it was asked. */
export const session = new Watched<Session | null>(null);

/** Makes the path of an API call; each part is escaped. */
export function path(...parts: string[]): string {
  return "/api/v1/" + parts.map(encodeURIComponent).join("/");
}

/** Adds a query; empty values are left out. */
export function query(of: string, values: Record<string, string | number | undefined>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&");
  return text ? `${of}?${text}` : of;
}

const ANSWER_MS_MAX = 120_000;

export async function call<T>(method: string, of: string, body?: BodyInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(of, {
      method,
      body,
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
  } catch {
    reachable.set(false);
    throw new ApiFault(0, "UNREACHABLE", "the gateway does not answer");
  }
  reachable.set(true);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiFault(response.status, "NO_JSON", `the gateway answered ${response.status} without JSON`);
  }
  if (!response.ok) {
    const { error = "", message = "" } = answer as { error?: string; message?: string };
    if (response.status === 401 && of !== path("session")) void askSession();
    throw new ApiFault(response.status, error, message || `the gateway answered ${response.status}`);
  }
  return answer as T;
}

export const get = <T>(of: string): Promise<T> => call<T>("GET", of);

/** Asks the gateway who we are. */
export async function askSession(): Promise<void> {
  try {
    session.set(await get<Session>(path("session")));
  } catch {
    // `reachable` says it, and the page asks again.
  }
}

export async function logIn(token: string): Promise<void> {
  session.set(await call<Session>("POST", path("session"), JSON.stringify({ token })));
}

export async function logOut(): Promise<void> {
  await call("DELETE", path("session"));
  await askSession();
}

/** The words of a fault, for a person. */
export function words(fault: unknown): string {
  return fault instanceof Error ? fault.message : String(fault);
}
