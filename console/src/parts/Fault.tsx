import { words } from "../api";
import { visible } from "../format";

/** A fault in words, told to screen readers too. */
export function Fault({ of }: { of: unknown }) {
  return of ? (
    <p class="bad" role="alert">
      {visible(words(of))}
    </p>
  ) : null;
}
