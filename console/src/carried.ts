// The message that goes from one page to the next. The gateway forgets the messages of its tap with the last viewer.

import { get, path } from "./api";
import type { TapPayload } from "./types";

let carried: TapPayload | null = null;

export function carry(message: TapPayload): void {
  carried = message;
}

/** The message of the tap with this number: the one that was carried here, or what the gateway remembers. */
export async function tappedMessage(id: string): Promise<TapPayload> {
  return carried !== null && String(carried.id) === id ? carried : get<TapPayload>(path("tap", id));
}
