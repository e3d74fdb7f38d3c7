import { useState } from "preact/hooks";
import { words } from "../api";
import { count, visible } from "../format";
import { isConflict, put, servingVersion } from "../put";
import type { PutRequest } from "../put";
import type { Put } from "../types";

export interface Putting {
  busy: boolean;
  fault: unknown;
  done: Put | null;
  /** The request that somebody else was before. */
  late: PutRequest | null;
  start: (request: PutRequest) => Promise<boolean>;
  clear: () => void;
}

const NOTHING_YET = { busy: false, fault: null as unknown, done: null as Put | null, late: null as PutRequest | null };

/** A put and what came of it. `start` gives true if the decoder serves. */
export function usePutting(): Putting {
  const [state, setState] = useState(NOTHING_YET);
  const start = async (request: PutRequest) => {
    setState({ ...NOTHING_YET, busy: true });
    try {
      setState({ ...NOTHING_YET, done: await put(request) });
      return true;
    } catch (fault) {
      setState({ ...NOTHING_YET, fault, late: isConflict(fault) ? request : null });
      return false;
    }
  };
  return { ...state, start, clear: () => setState(NOTHING_YET) };
}

/** The outcome of a put. Where somebody else was before, it asks whether theirs is to be replaced. */
export function PutOutcome({ of, onPut }: { of: Putting; onPut: () => void }) {
  const { late } = of;
  const putOver = async (request: PutRequest) => {
    const beganWith = await servingVersion(request.tenant, request.type).catch(() => request.beganWith);
    if (await of.start({ ...request, beganWith })) onPut();
  };
  return (
    <>
      {of.busy && <p role="status">It is sent, compiled and checked…</p>}
      {of.fault !== null && (
        <>
          <p class="bad">
            <strong>{late ? "Somebody else has put a decoder there meanwhile." : "It may not serve."}</strong>
          </p>
          <pre class="box bad" role="alert">
            {visible(words(of.fault))}
          </pre>
        </>
      )}
      {late && (
        <div class="row">
          <button type="button" onClick={() => void putOver(late)}>
            Put mine in its place
          </button>
        </div>
      )}
      {of.done && <Verdict put={of.done} />}
    </>
  );
}

export function Verdict({ put: of }: { put: Put }) {
  const comparison = of.comparison as { compared?: number; different?: number; first?: string } | undefined;
  const said = { serving: "It serves.", unchanged: "It served already.", tried: "It may serve." }[of.state] ?? of.state;
  return (
    <div role="status">
      <p>
        <strong>{said}</strong> {visible(of.guest)}
      </p>
      {comparison && (
        <p>
          {comparison.compared === 0
            ? "No message is remembered to compare it on."
            : `${count(comparison.different)} of the last ${count(comparison.compared)} messages decode differently.`}
        </p>
      )}
      {comparison?.first && (
        <pre class="box" tabIndex={0} role="region" aria-label="First difference">
          {visible(comparison.first)}
        </pre>
      )}
    </div>
  );
}
