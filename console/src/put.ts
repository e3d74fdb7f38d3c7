// Decoders that are put: the call, and the version that it takes the place of.

import { ApiFault, call, get, path, query } from "./api";
import type { Guest, Put } from "./types";

export interface PutRequest {
  tenant: string;
  type: string;
  /** The extension of the file. */
  file: string;
  content: Blob;
  cases?: Blob | null;
  expectSame?: boolean;
  /** The version that served when its author began, or `none`. */
  beganWith: string;
}

/** The word for a place at which nothing serves. */
export const NOTHING = "none";

export function put({ tenant, type, file, content, cases, expectSame, beganWith }: PutRequest): Promise<Put> {
  const values = { file, cases_bytes: cases?.size, expect_same: expectSame ? "true" : undefined, expect_version: beganWith };
  return call<Put>("PUT", query(path("guests", tenant, type), values), new Blob(cases ? [cases, content] : [content]));
}

/** The version that serves at a place now. */
export async function servingVersion(tenant: string, type: string): Promise<string> {
  const { guests } = await get<{ guests: Guest[] }>(path("guests", tenant));
  return guests.find((guest) => guest.type === type)?.version ?? NOTHING;
}

/** True if somebody else has put a decoder there meanwhile. */
export function isConflict(fault: unknown): boolean {
  return fault instanceof ApiFault && fault.code === "CHANGED_MEANWHILE";
}

/** The extension of a file, which says what it is. */
export function extension(name: string): string {
  return name.includes(".") ? name.slice(name.lastIndexOf(".") + 1) : "wasm";
}
