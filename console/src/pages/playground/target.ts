// The way of a topic to its decoder.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, path, query } from "../../api";
import type { PlaygroundTarget } from "../../types";

/** Milliseconds for which somebody may go on typing a topic. */
const TYPING_MS = 300;

/** The place that a topic leads to. */
export function useTarget(topic: string): { target: PlaygroundTarget | null; fault: unknown; refresh: () => void } {
  const [state, setState] = useState<{ target: PlaygroundTarget | null; fault: unknown }>({ target: null, fault: null });
  const [again, setAgain] = useState(0);
  const latest = useRef(0);
  useEffect(() => {
    const number = ++latest.current;
    const take = (target: PlaygroundTarget | null, fault: unknown) => {
      if (number === latest.current) setState({ target, fault });
    };
    if (topic === "") return take(null, null);
    const timer = setTimeout(() => {
      get<PlaygroundTarget>(query(path("playground"), { topic })).then(
        (target) => take(target, null),
        (fault: unknown) => take(null, fault),
      );
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [topic, again]);
  return { ...state, refresh: () => setAgain((n) => n + 1) };
}
