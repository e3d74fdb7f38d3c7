import { count, visible } from "../../format";
import { Verdict } from "../../parts/PutOutcome";
import { ofBase64 } from "../../payload";
import type { TrialResult } from "../../types";
import { MappedValues } from "./MappedValues";

/** Words for ends that a code alone does not explain. */
const WORDS: Record<string, string> = {
  GUEST_DEADLINE: "It ran too long, and was stopped at its deadline",
  GUEST_MEMORY: "It took more memory than it may have, and was stopped",
  GUEST_TRAP: "The decoder broke down",
  GUEST_OUTPUT: "Its output is too long, or not what the interface says",
};

function heading(of: TrialResult): string {
  if (of.outcome === "quarantined") return `${WORDS[of.reason ?? ""] ?? "It would be refused"}: ${of.reason}`;
  if (of.outcome === "empty") return "No line would be made of it";
  return `${count(of.lines.length)} ${of.lines.length === 1 ? "line" : "lines"}, ${count(of.cpu_us)} µs of CPU time`;
}

/** The end of a message that was tried, and the way to it. */
export function Outcome({ of, sent }: { of: TrialResult; sent: Uint8Array }) {
  return (
    <>
      <div role="status">
        <h2 class={of.outcome === "quarantined" ? "bad" : ""}>{heading(of)}</h2>
      </div>
      {of.lines.length > 0 && (
        <pre class="box" tabIndex={0} role="region" aria-label="Lines">
          {visible(of.lines.join("\n"))}
        </pre>
      )}
      {of.ignored.length > 0 && <p>Left out: {visible(of.ignored.join(", "))}</p>}
      <ol class="steps" aria-label="Steps">
        {of.steps.map((step) => (
          <li key={step.step}>
            <strong>{step.step}</strong>
            <span class={step.ok ? "soft" : "bad"}>{step.ok ? "good" : "refused"}</span>
            <span>{visible(step.text)}</span>
          </li>
        ))}
      </ol>
      {of.values && <MappedValues values={of.values} leftOut={of.values_left_out} bytes={of.decoder_payload_base64 ? ofBase64(of.decoder_payload_base64) : sent} />}
      {of.may_not_serve && (
        <>
          <p class="bad">
            <strong>It runs, but it may not serve:</strong>
          </p>
          <pre class="box bad" tabIndex={0} role="region" aria-label="Why it may not serve">
            {visible(of.may_not_serve)}
          </pre>
        </>
      )}
      {of.put && <Verdict put={of.put} />}
    </>
  );
}
