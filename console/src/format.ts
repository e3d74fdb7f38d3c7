// Numbers with units, and times.

const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count, grouped: 12,345. */
export function count(value: number | undefined | null): string {
  return value === undefined || value === null ? "–" : GROUPED.format(value);
}

/** A rate a second. */
export function rate(value: number | undefined | null): string {
  if (value === undefined || value === null) return "–";
  return value !== 0 && value < 10 ? value.toFixed(1) : count(value);
}

/** Bytes in binary units. */
export function bytes(value: number | undefined | null): string {
  if (value === undefined || value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit > 0 && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A length of time in its two largest units. */
export function duration(seconds: number | undefined | null): string {
  if (seconds === undefined || seconds === null) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function milliseconds(value: number | undefined | null): string {
  if (value === undefined || value === null) return "–";
  return value !== 0 && value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

export type Zone = "local" | "UTC";

/** A moment with its zone: date and time to the second. */
export function moment(ms: number | string, zone: Zone): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const text = date.toLocaleString("sv-SE", { timeZone: zone === "UTC" ? "UTC" : undefined });
  return zone === "UTC" ? `${text} UTC` : text;
}

/** The time of a moment to the millisecond. */
export function clock(ms: number | string, zone: Zone): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const options = { timeZone: zone === "UTC" ? "UTC" : undefined, fractionalSecondDigits: 3, hour12: false } as const;
  return date.toLocaleTimeString("sv-SE", { ...options, hour: "2-digit", minute: "2-digit", second: "2-digit" }).replace(",", ".");
}

/** Text in which control characters are seen: none of them moves the cursor or hides what stands behind it. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, (character) => {
    const code = character.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
