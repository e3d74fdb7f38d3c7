import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useWatched, useZone } from "../hooks";
import { theme } from "../theme";

export interface Line {
  name: string;
  values: (number | null)[];
  /** Drawn with dashes: told apart without colour. */
  dashed?: boolean;
}

interface Props {
  title: string;
  at_s: number[];
  lines: Line[];
  /** A value with its unit. */
  shown: (value: number) => string;
}

const HEIGHT_PX = 180;

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The last hour of a value, and its last sample in words. */
export function Chart({ title, at_s, lines, shown }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const utc = useZone() === "UTC";
  const dark = useWatched(theme);
  const data = [at_s, ...lines.map((line) => line.values)] as uPlot.AlignedData;
  const latest = useRef(data);
  latest.current = data;
  const names = lines.map((line) => `${line.name}${line.dashed ? "-" : ""}`).join();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const made = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { show: false },
        tzDate: utc ? (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC") : undefined,
        scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [
          { ...axis, size: 28, values: (_, ticks, __, ___, step) => ticks.map((tick) => timeOfDay(tick, utc, step < 60)) },
          { ...axis, size: 64, values: (_, ticks) => ticks.map(shown) },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            stroke: colour(line.dashed ? "--soft" : "--accent"),
            width: 1.5,
            dash: line.dashed ? [5, 4] : undefined,
            points: { show: false },
          })),
        ],
      },
      latest.current,
      element,
    );
    plot.current = made;
    const size = new ResizeObserver(() => made.setSize({ width: Math.max(200, element.clientWidth), height: HEIGHT_PX }));
    size.observe(element);
    return () => {
      size.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [utc, dark, names]);
  useEffect(() => plot.current?.setData(data), [data]);
  const last = lines.map((line) => {
    const value = line.values.at(-1);
    return `${line.name}${lines.some((one) => one.dashed) ? (line.dashed ? " (dashed)" : " (solid)") : ""} ${value == null ? "none" : shown(value)}`;
  });
  return (
    <section class="chart" aria-label={title}>
      <h3>
        {title} <span class="soft">{at_s.length > 0 ? last.join(", ") : "no samples yet"}</span>
      </h3>
      <div ref={place} aria-hidden="true" />
    </section>
  );
}

function timeOfDay(seconds: number, utc: boolean, withSeconds: boolean): string {
  const second = withSeconds ? ("2-digit" as const) : undefined;
  return new Date(seconds * 1000).toLocaleTimeString("sv-SE", { hour: "2-digit", minute: "2-digit", second, timeZone: utc ? "UTC" : undefined });
}
