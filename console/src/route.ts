// The page that the address names: `#/page/part?name=value`.

import { useEffect, useState } from "preact/hooks";

export interface Route {
  page: string;
  parts: string[];
  query: URLSearchParams;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function read(hash: string): Route {
  const [before = "", after = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [page = "", ...parts] = before.split("/").map(decoded);
  return { page: page || "overview", parts, query: new URLSearchParams(after) };
}

export function link(page: string, ...parts: string[]): string {
  return "#/" + [page, ...parts].map(encodeURIComponent).join("/");
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => read(location.hash));
  useEffect(() => {
    const changed = () => setRoute(read(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
