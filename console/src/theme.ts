// Dark or light: as the system has it, until somebody chooses.

import { Watched } from "./api";
import { keep, kept } from "./hooks";

export type Theme = "dark" | "light";

const system = matchMedia("(prefers-color-scheme: dark)");

function chosen(): Theme {
  const before = kept("theme");
  if (before === "dark" || before === "light") return before;
  return system.matches ? "dark" : "light";
}

export const theme = new Watched<Theme>(chosen());

function apply(): void {
  document.documentElement.dataset.theme = theme.value;
}

apply();
theme.watch(apply);
system.addEventListener("change", () => theme.set(chosen()));

export function setTheme(next: Theme): void {
  keep("theme", next);
  theme.set(next);
}
