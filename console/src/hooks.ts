// Values that are watched, asked again and again, or kept over a visit.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Watched, get, session } from "./api";
import type { Session } from "./api";
import type { Zone } from "./format";

export function useWatched<T>(watched: Watched<T>): T {
  const [value, setValue] = useState(watched.value);
  useEffect(() => {
    setValue(() => watched.value);
    return watched.watch(() => setValue(() => watched.value));
  }, [watched]);
  return value;
}

/** The caller; pages are shown only once it is known. */
export function useSession(): Session {
  return useWatched(session) as Session;
}

export interface Polled<T> {
  data: T | null;
  fault: unknown;
  refresh: () => void;
}

/** Asks a path every so often while the page is seen; once, if `everyMs` is 0. */
export function usePoll<T>(of: string | null, everyMs: number): Polled<T> {
  const [state, setState] = useState<{ of: string | null; data: T | null; fault: unknown }>({ of, data: null, fault: null });
  const latest = useRef(0);
  const ask = useCallback(async () => {
    if (of === null) return;
    const number = ++latest.current;
    try {
      const data = await get<T>(of);
      if (number === latest.current) setState({ of, data, fault: null });
    } catch (fault) {
      if (number === latest.current) setState((before) => ({ of, data: before.of === of ? before.data : null, fault }));
    }
  }, [of]);
  useEffect(() => {
    void ask();
    if (everyMs === 0) return () => void latest.current++;
    const timer = setInterval(() => {
      if (!document.hidden) void ask();
    }, everyMs);
    return () => {
      clearInterval(timer);
      latest.current++;
    };
  }, [ask, everyMs]);
  return { data: state.of === of ? state.data : null, fault: state.of === of ? state.fault : null, refresh: () => void ask() };
}

/** The time zone of all times on the page. */
export const zone = new Watched<Zone>(kept("zone") === "UTC" ? "UTC" : "local");

export function useZone(): Zone {
  return useWatched(zone);
}

/** A value of this browser that outlives a visit. No secret is kept there. */
export function kept(name: string): string | null {
  try {
    return localStorage.getItem(`tidegate.${name}`);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`tidegate.${name}`, value);
  } catch {
    // A browser that keeps nothing shows the page all the same.
  }
}
